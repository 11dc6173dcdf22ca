"""Publishing on Kaggle and Hugging Face by their real clients, which talk to stand-ins."""

import dataclasses
import importlib
import json
import pathlib
import re
import shutil
import sys
import types
from typing import NamedTuple
from unittest import mock

import huggingface_hub
import numpy as np
import pytest
import tensorflow_hub as hub
from PIL import Image

from export import artifact, card, checksums, formats
from export import build as builds
from export.spec import Spec
from publish import hosting, huggingface, kaggle
from tests import fake_hosts
from tests.conftest import ROOT
from unpooling import weights
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

# huggingface_hub's own.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

KAGGLE = "emilutz/vgg19-unpooling-{}/tensorFlow2/block2-conv2"
HUGGING_FACE = "emilutz/vgg19-block2-conv2-unpooling-{}"


class Case(NamedTuple):
    """How the same is asked of both hosts."""

    module: object
    fake: type
    place: str  # of the encoder and the decoder of block2
    another: str
    bad: tuple[str, ...]
    last_call: str


CASES = {
    "kaggle": Case(
        *(kaggle, fake_hosts.Kaggle, KAGGLE, "emilutz/my-model/tensorFlow2/small"),
        ("emilutz/my-model", "emilutz/my-model/keras/small", "a b/c/tensorFlow2/d", f"{KAGGLE}/3"),
        "/CreateModelInstance",
    ),
    "huggingface": Case(
        *(huggingface, fake_hosts.HuggingFace, HUGGING_FACE, "emilutz/mine"),
        ("mine", "a/b/c", "a b/c", "../c", "a/"),
        "/commit/",
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def host(case, monkeypatch, tmp_path):
    """The stand-in that the case's client talks to in this process."""
    host = case.fake()
    caches = {"KAGGLEHUB_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    for name, value in {**host.environment, **caches}.items():
        monkeypatch.setenv(name, value)
    for module in ("kagglehub.gcs_upload", "huggingface_hub.utils._http"):
        client = importlib.import_module(module)  # Which sleeps before it tries again.
        monkeypatch.setattr(client, "time", types.SimpleNamespace(sleep=lambda seconds: None))
    # It inspects the stack for every call, which takes a second in pytest's.
    monkeypatch.setattr("kagglehub.clients.search_lib_in_call_stack", lambda library: None)
    # Which huggingface_hub reads once, when it is imported.
    constants = importlib.import_module("huggingface_hub.constants")
    template = f"{host.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", host.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    yield host
    huggingface_hub.close_session()
    host.close()


@pytest.fixture(scope="module")
def encoder(build):
    return str(build("block2_conv2"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Where converted modules are kept."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(autouse=True)
def convert_once(converted, monkeypatch):
    """Converts each module once, without the check, which test_formats.py tests."""
    convert = formats.convert

    def copy(archive, format, output):
        folder = converted / re.sub(r"\W", "_", archive) / format
        kept = folder / ("file" + pathlib.Path(output).suffix)
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            convert(archive, format, str(kept))
        (shutil.copytree if kept.is_dir() else shutil.copy)(kept, output)

    monkeypatch.setattr(formats, "_check_in_fresh_process", lambda *arguments: None)
    monkeypatch.setattr(formats, "convert", copy)


# Each form of a page: where it is sent, with which options, and what lies there beside the card;
# an empty name is that of the folder itself.
KERAS_FILES = ("config.json", "metadata.json", "model.weights.h5")
PAGES = {
    "kaggle tensorFlow2": ("kaggle", {"framework": "tensorFlow2"}, ("",)),
    "kaggle keras": ("kaggle", {"framework": "keras"}, ("{}.keras",)),
    "kaggle tfLite": ("kaggle", {"framework": "tfLite"}, ("{}.tflite",)),
    "huggingface": (
        "huggingface",
        {"formats": ["onnx", "litert"]},
        (*KERAS_FILES, "model.safetensors", "saved_model/", "{}.onnx", "{}.tflite"),
    ),
}


WITHOUT_TENSORFLOW = """
import sys

sys.modules["tensorflow"] = None
"""


def place_of(page, kind):
    name, options, _ = PAGES[page]
    place = CASES[name].place.format(kind)
    return place.replace("tensorFlow2", options.get("framework", "tensorFlow2"))


def program(blocks):
    """The code of a page about block5, for what is published here."""
    return "\n".join(blocks).replace("block5-conv2", "block2-conv2").replace(".jpg", ".png")


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """The photograph that pages read, in the working directory: pixels as they are decoded."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save("photo.png")
    return noise[np.newaxis, :52].astype(np.float32)


@pytest.mark.parametrize(
    "page, case",
    [
        pytest.param(page, CASES[name], id=page, marks=[pytest.mark.slow] * (name == page))
        for page, (name, *_) in PAGES.items()
    ],
)
def test_what_is_published_is_what_is_downloaded_and_its_page_runs_as_printed(
    page, case, host, encoder, build_decoder, saved_model, picture, run_command
):
    _, options, held = PAGES[page]
    folders = {"encoder": encoder, "decoder": str(build_decoder("block2_conv2"))}
    encode, decode = (hub.load(saved_model("block2_conv2", kind=kind)) for kind in folders)
    features, *indices = encode(picture)
    decoded = decode([features, *indices])
    for kind, folder in folders.items():
        case.module.publish(folder, **options)
        (files,) = host.sent[place_of(page, kind)]
        expected = {"README.md", "SHA256SUMS", f"{kind}.manifest.json", f"{kind}.png"}
        for name in held:
            if name in ("", "saved_model/"):
                directory = pathlib.Path(saved_model("block2_conv2", kind=kind))
                for path in directory.rglob("*"):
                    if path.is_file():
                        member = name + path.relative_to(directory).as_posix()
                        assert files[member] == path.read_bytes()
                        expected.add(member)
            else:
                expected.add(name.format(kind))
        assert set(files) == expected
        sums = {name: checksums.digest(files[name])["sha256"] for name in {*files} - {"SHA256SUMS"}}
        listed = (line.split("  ") for line in files["SHA256SUMS"].decode().splitlines())
        assert {name: sha256 for sha256, name in listed} == sums

        names, blocks = {}, card.code_blocks(files["README.md"].decode())
        assert sum(".png" in program([block]) for block in blocks) == 1 + (page == "huggingface")
        for block in blocks:
            for name in ("encoded", "decoded"):
                names.pop(name, None)
            exec(program([block]), names)
            found = names.get("encoded", names).get("features")
            if found is not None:
                np.testing.assert_allclose(found, features, rtol=1e-3, atol=1e-3)
            if "decoded" in names:
                np.testing.assert_allclose(names["decoded"], decoded, rtol=1e-3, atol=1e-2)
        if kind == "decoder":
            assert "decoded" in names
            if page == "huggingface":
                script = WITHOUT_TENSORFLOW + program(blocks[:1]) + "\nprint(error)"
                result = run_command("-c", script, cwd=".", KERAS_BACKEND="jax", **host.environment)
                assert result.returncode == 0, result.stderr
                error = abs(np.asarray(decoded) - picture).mean()
                np.testing.assert_allclose(float(result.stdout.split()[-1]), error, rtol=1e-4)
        elif "saved_model/" in held or "" in held:
            assert names["unpooled"].shape == (1, 52, 70, 64)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_code_of_the_docs_runs(case, host, encoder, saved_model, picture):
    for _, options, _ in (page for page in PAGES.values() if CASES[page[0]] is case):
        case.module.publish(encoder, **options)
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    package = card.HOSTS[case.module.__name__.partition(".")[2]]
    (section,) = (s for s in text.split("\n## ")[1:] if f"import {package}\n" in s)
    exec(program(card.code_blocks(section)), names := {"images": picture})
    features = hub.load(saved_model("block2_conv2"))(picture)[0]
    for result in (names["encoder"](picture), names["keras_encoder"](picture)):
        np.testing.assert_allclose(result[0], features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", [CASES["kaggle"]], ids=["kaggle"])
def test_each_variation_on_kaggle_has_the_usage_of_its_page(case, host, encoder):
    for framework in kaggle.FRAMEWORKS:
        kaggle.publish(encoder, framework=framework)
    assert len(host.usages) == len(host.sent) == 3
    for place, said in host.usages.items():
        readme = host.sent[place][0]["README.md"].decode()
        assert said["overview"].startswith("Untrained (random weights): VGG19 up to `block2_conv2`")
        assert f"\n{said['usage']}\n## Training" in readme and place in said["usage"]
        assert said["licenseName"] == "MIT" and said["fineTunable"] == ("tfLite" not in place)
    host.faults["/UpdateModelInstance"] = [500]
    with pytest.raises(UserError, match="500"):
        kaggle.publish(encoder)


@pytest.mark.parametrize("case", [CASES["huggingface"]], ids=["huggingface"])
def test_config_says_what_the_model_is_and_keras_still_reads_it(case, host, encoder, build_decoder):
    huggingface.publish(encoder)
    (files,) = host.sent[case.place.format("encoder")]
    config = json.loads(files["config.json"])
    assert config["class_name"] == "Functional"
    stated, made = config["unpooling"], artifact.read(encoder).manifest
    assert stated["layer"] == "block2_conv2" and stated["features"] == {
        "channels": 128,
        "stride": 2,
    }
    assert stated["positions"]["block1_switches"] == {"channels": 64, "stride": 2}
    assert stated["preprocessing"]["subtracted"] == [103.939, 116.779, 123.68]
    assert stated["archive_sha256"] == made["archive"]["sha256"]
    assert stated["weights_sha256"] == made["weights"]["layers"]
    with pytest.raises(UserError, match=r"--formats must be some of onnx, litert\. Received: tf"):
        huggingface.publish(encoder, formats=["tf"])


@pytest.fixture(scope="module")
def trained(build, tmp_path_factory):
    """The folder of the artifact of a decoder that says it was trained, beside its encoder's."""
    layer, folder = "block1_conv2", tmp_path_factory.mktemp("trained")
    shutil.copytree(build(layer), folder / "vgg19-block1-conv2")
    evaluation = {"photographs": 2, "error": 4.25, "psnr": 31.5, "ssim": 0.9375}
    record = TrainingRecord(
        layer=layer,
        encoder={"source": "random", "sha256": weights.load("random", layer).digests},
        flags={},
        photographs={},
        steps=1,
        feature_scale=1.0,
        validation={},
        evaluation=evaluation,
    )
    path = str(folder / "decoder.h5")
    weights.save(path, weights.load_decoder("random", layer).layers, record)
    spec = Spec("decoder", layer)
    return builds.build_decoder(spec, path, output_dir=str(folder), verify=False)


@pytest.mark.parametrize("case", [CASES["huggingface"]], ids=["huggingface"])
def test_a_trained_decoder_has_its_errors_in_the_header_and_a_picture(case, host, trained, capsys):
    huggingface.publish(trained)
    (files,) = host.sent["emilutz/vgg19-block1-conv2-unpooling-decoder"]
    readme = files["README.md"].decode()
    data = huggingface_hub.ModelCard(readme).data
    measured = {result.metric_type: result.metric_value for result in data.eval_results}
    assert measured == {"mae": 4.25, "psnr": 31.5, "ssim": 0.9375}
    assert {result.dataset_name for result in data.eval_results} == {
        "2 photographs held out from its training"
    }
    assert files["reconstruction.png"].startswith(b"\x89PNG") and "](reconstruction.png)" in readme
    shutil.rmtree(pathlib.Path(trained).parent / "vgg19-block1-conv2")
    huggingface.publish(trained)
    assert "no picture before and after" in capsys.readouterr().out
    newest = host.sent["emilutz/vgg19-block1-conv2-unpooling-decoder"][-1]
    assert "reconstruction.png" not in newest and b"reconstruction.png" not in newest["README.md"]


def test_license_and_notes_are_the_weights(case, host, encoder):
    case.module.publish(encoder)
    digest = artifact.read(encoder).manifest["archive"]["sha256"]
    (facts,) = host.facts
    if case.module is kaggle:
        assert facts["licenseName"] == "MIT"
        case.module.publish(encoder)  # Kaggle takes no notes for the first version.
        notes = host.facts[1]["versionNotes"]
    else:
        assert facts["summary"] == "vgg19-block2-conv2-unpooling-encoder/1"
        notes = facts["description"]
    assert digest in notes and "; weights random: untrained, MIT; " in notes


def test_a_dry_run_prints_what_is_sent_and_sends_nothing(case, host, encoder, capsys, monkeypatch):
    case.module.publish(encoder, dry_run=True)
    assert host.requests == []
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("to: ") and lines[0].endswith(case.place.format("encoder"))
    assert lines[-1] == "dry run: nothing was sent"
    case.module.publish(encoder)
    assert capsys.readouterr().out.splitlines()[-1] == "done"
    (files,) = host.sent[case.place.format("encoder")]
    for name, content in files.items():
        assert f"{len(content):>13,} bytes  {name}" in lines
    assert sum(" bytes  " in line for line in lines) == len(files)
    assert files["README.md"].decode() in printed


def test_another_place_may_be_given_but_none_of_another_form(case, host, encoder, tmp_path):
    for place in case.bad:
        with pytest.raises(UserError, match=r"must be OWNER/.*Received: "):
            case.module.publish(encoder, place)
    with pytest.raises(UserError, match="is not a complete artifact"):
        case.module.publish(str(tmp_path))
    assert host.requests == []
    private = {"private": True} if case.module is huggingface else {}
    case.module.publish(encoder, case.another, **private)
    assert set(host.sent) == {case.another}
    assert not private or host.private


@pytest.mark.parametrize("case", [CASES["huggingface"]])
def test_what_is_to_be_private_is_not_sent_to_a_public_repository(case, host, encoder):
    huggingface.publish(encoder)
    with pytest.raises(UserError, match="is there already, and public: make it private"):
        huggingface.publish(encoder, private=True)
    assert [len(versions) for versions in host.sent.values()] == [1]


def test_builds_for_one_layer_do_not_overwrite_each_other(case, build, host):
    builds = {("int64", "argmax"): "", ("int32", "argmax"): "-int32", ("int64", "xla"): "-xla"}
    place = case.place.format("encoder")
    frameworks = ("tensorFlow2", "keras") if case.module is kaggle else ("",)
    for framework in frameworks:
        options = {"framework": framework} if framework else {}
        for flags in builds:
            case.module.publish(str(build("block2_conv2", *flags)), **options)
    assert set(host.sent) == {
        place.replace("tensorFlow2", framework) + ending
        for framework in frameworks
        for ending in builds.values()
    }
    assert all(len(versions) == 1 for versions in host.sent.values())


def test_a_decoder_names_its_encoder(case, host, build_decoder, capsys):
    case.module.publish(str(build_decoder("block2_conv2")), dry_run=True)
    printed = capsys.readouterr().out
    assert "`decoder.manifest.json` has the SHA-256" in printed
    for half in ("encoder", "decoder"):
        place = case.place.format(half)
        assert re.search(rf'^{half.upper()}_URL = \w+\.\w+_download\(\s*"{place}"', printed, re.M)


@pytest.mark.parametrize("case", [CASES["huggingface"]])
def test_another_version_replaces_the_variables_and_nothing_of_the_owners(
    case, host, build, encoder
):
    place = case.place.format("encoder")
    case.module.publish(encoder)
    gone = {"saved_model/variables/variables.data-00000-of-00002", "encoder.onnx"}
    gone |= {"saved_model.pb", "variables/variables.index"}  # of before they were in a folder
    host.sent[place][0] |= {"LICENSE": b"mine", **dict.fromkeys(gone, b"old")}
    case.module.publish(str(build("block2_conv2", "int32")), place)
    old, new = host.sent[place]
    assert new["saved_model/saved_model.pb"] != old["saved_model/saved_model.pb"]
    assert new["LICENSE"] == b"mine"
    assert set(old) - set(new) == gone


FAULTS = {
    "refused file": ("PUT ", [403], "403"),
    "last call fails": ("", [413], "413"),
    "broken connection": ("POST ", ["cut"] * 6, ""),
}


@pytest.mark.parametrize("part, answers, words", FAULTS.values(), ids=FAULTS)
def test_a_refusal_is_one_line_and_the_call_can_be_repeated(
    case, host, encoder, part, answers, words
):
    host.faults[part or case.last_call] = list(answers)
    with pytest.raises(UserError) as caught:
        case.module.publish(encoder)
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert f"Upload of {case.place.format('encoder')} to " in message
    assert "can be repeated" in message and "authentica" in message
    assert fake_hosts.TOKEN not in message and fake_hosts.SIGNATURE not in message
    assert not host.sent.get(case.place.format("encoder"))
    host.faults.clear()
    case.module.publish(encoder)
    assert len(host.sent[case.place.format("encoder")]) == 1


def test_without_credentials_or_rights_it_says_so(case, host, encoder, monkeypatch):
    with pytest.raises(UserError, match="403"):
        case.module.publish(encoder, case.another.replace("emilutz", "google"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UserError, match=r"401.*authentication|401.*#authenticate"):
        case.module.publish(encoder)


@pytest.mark.parametrize("bug", [ValueError, OSError])
def test_a_bug_passes_unchanged(case, host, encoder, monkeypatch, bug):
    upload = mock.Mock(side_effect=bug("mine"))
    monkeypatch.setattr(getattr(case.module, case.fake.__name__), "upload", upload)
    with pytest.raises(bug, match="mine") as caught:
        case.module.publish(encoder)
    assert not isinstance(caught.value, UserError)


def test_without_the_client_it_says_how_to_get_it(case, encoder, monkeypatch):
    package = card.HOSTS[case.module.__name__.partition(".")[2]]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        case.module.publish(encoder, dry_run=True)


UNCHECKED = """
import runpy, sys
from export import formats

formats._check_in_fresh_process = lambda *arguments: None
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def test_the_commands_print_no_secret(case, host, encoder, run_command):
    # First the clients report a failure and try again, then they are refused.
    host.faults = {"PUT ": ["cut"], case.last_call: [403] * 9}
    name = case.module.__name__
    result = run_command("-c", UNCHECKED, name, f"--artifact={encoder}", **host.environment)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert sum(line.startswith(f"{name}: Upload of ") for line in result.stderr.splitlines()) == 1
    assert any(asked.startswith("PUT ") for asked in host.requests)
    for secret in (fake_hosts.TOKEN, fake_hosts.SIGNATURE):
        assert secret not in result.stdout + result.stderr


# What both send, without a client.


def stated(found, license=None, **weights):
    """An artifact of other weights."""
    made = {**found.manifest, "flags": {**found.manifest["flags"], "license": license}}
    made["weights"] = {**made["weights"], "seed": None, **weights}
    return dataclasses.replace(found, manifest=made)


def test_every_page_of_imagenets_weights_names_their_authors_and_license(encoder):
    found = stated(artifact.read(encoder), source="imagenet")
    assert found.license.kaggle == "Attribution 4.0 International (CC BY 4.0)"
    words = "K. Simonyan and A. Zisserman, Visual Geometry Group, University of Oxford"
    assert f"CC BY 4.0 (VGG19's ImageNet weights are by {words})" in hosting.notes(found)
    for key in ("kaggle", "huggingface"):
        downloads = {name: {"encoder": "here()"} for name in ("keras", "saved_model")}
        readme = hosting.readme(found, key, downloads)
        assert words in readme and "https://creativecommons.org/licenses/by/4.0/" in readme
    data = huggingface_hub.ModelCard(readme).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["datasets"] == ["ILSVRC/imagenet-1k"]
    # Names of huggingface.js: packages/tasks/src/model-libraries.ts and pipelines.ts.
    assert data["library_name"] == "keras" and data["pipeline_tag"] == "image-feature-extraction"
    assert "untrained" not in data["tags"]
    found = stated(found, source="file", license="apache-2.0")  # as its publisher says
    assert found.license.kaggle == "Apache 2.0" and "file, Apache 2.0; " in hosting.notes(found)


def test_the_header_of_an_untrained_decoder_says_so(build_decoder):
    found = artifact.read(str(build_decoder("block1_conv2")))
    downloads = {"keras": {"encoder": "e()", "decoder": "d()"}}
    readme = hosting.readme(found, "huggingface", downloads)
    data = huggingface_hub.ModelCard(readme).data.to_dict()
    assert (data["license"], data["pipeline_tag"]) == ("mit", "image-to-image")
    assert "untrained" in data["tags"] and not {"datasets", "model-index"} & set(data)
