"""Publishing on Kaggle and Hugging Face by their real clients, which talk to stand-ins."""

import dataclasses
import importlib
import pathlib
import sys
import types
from typing import NamedTuple
from unittest import mock

import huggingface_hub
import numpy as np
import pytest
import tensorflow_hub as hub
from PIL import Image

from export import artifact, card, checksums
from publish import hosting, huggingface, kaggle
from tests import fake_hosts
from tests.conftest import ROOT
from unpooling.errors import UserError

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


def recipe(package):
    """What docs/publishing.md says, for the layer that is published here."""
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    (block,) = [b for b in card.code_blocks(text) if f"import {package}\n" in b]
    assert "block5-conv2" in block
    return block.replace("block5-conv2", "block2-conv2")


def test_what_is_published_is_what_is_downloaded_and_its_page_runs_as_printed(
    case, host, encoder, saved_model, tmp_path, monkeypatch
):
    case.module.publish(encoder)
    (files,) = host.sent[case.place.format("encoder")]
    directory = saved_model("block2_conv2")
    members = [p for p in pathlib.Path(directory).rglob("*") if p.is_file()]
    members = {path.relative_to(directory).as_posix(): path.read_bytes() for path in members}
    beside = {"README.md", "SHA256SUMS", "encoder.manifest.json", "encoder.png"}
    assert files == members | {name: files[name] for name in beside}
    sums = {name: checksums.digest(files[name])["sha256"] for name in {*files} - {"SHA256SUMS"}}
    listed = (line.split("  ") for line in files["SHA256SUMS"].decode().splitlines())
    assert {name: sha256 for sha256, name in listed} == sums

    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save("photo.png")
    blocks = card.code_blocks(files["README.md"].decode().replace("photo.jpg", "photo.png"))
    names = {}
    exec("\n".join([*blocks, recipe(card.HOSTS[case.module.__name__.partition(".")[2]])]), names)
    original = hub.load(directory)(names["images"])
    assert names["unpooled"].shape == (1, 52, 70, 64)
    np.testing.assert_array_equal(names["encoder"](names["images"])[0], original[0])


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


def test_builds_for_one_layer_do_not_overwrite_each_other(case, build, host):
    builds = {("int32", "argmax"): "-int32", ("int64", "xla"): "-xla"}
    for flags in builds:
        case.module.publish(str(build("block2_conv2", *flags)))
    place = case.place.format("encoder")
    assert set(host.sent) == {place + ending for ending in builds.values()}


def test_a_decoder_names_its_encoder(case, host, build_decoder, capsys):
    case.module.publish(str(build_decoder("block2_conv2")), dry_run=True)
    printed = capsys.readouterr().out
    assert "`decoder.manifest.json` has the SHA-256" in printed
    for half in ("encoder", "decoder"):
        download = f'_download("{case.place.format(half)}")\n'
        (line,) = [x for x in printed.splitlines(True) if x.startswith(f"{half.upper()}_URL = ")]
        assert line.endswith(download)


@pytest.mark.parametrize("case", [CASES["huggingface"]])
def test_another_version_replaces_the_variables_and_nothing_of_the_owners(
    case, host, build, encoder
):
    place = case.place.format("encoder")
    case.module.publish(encoder)
    host.sent[place][0] |= {"LICENSE": b"mine", "variables/variables.data-00000-of-00002": b"old"}
    case.module.publish(str(build("block2_conv2", "int32")), place)
    old, new = host.sent[place]
    assert new["saved_model.pb"] != old["saved_model.pb"]
    assert new["LICENSE"] == b"mine"
    assert set(old) - set(new) == {"variables/variables.data-00000-of-00002"}


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
    monkeypatch.setattr(getattr(case.module, case.module.__all__[0]), "upload", upload)
    with pytest.raises(bug, match="mine") as caught:
        case.module.publish(encoder)
    assert not isinstance(caught.value, UserError)


def test_without_the_client_it_says_how_to_get_it(case, encoder, monkeypatch):
    package = card.HOSTS[case.module.__name__.partition(".")[2]]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        case.module.publish(encoder, dry_run=True)


def test_the_commands_print_no_secret(case, host, encoder, run_command):
    # First the clients report a failure and try again, then they are refused.
    host.faults = {"PUT ": ["cut"], case.last_call: [403] * 9}
    name = case.module.__name__
    result = run_command("-m", name, f"--artifact={encoder}", **host.environment)
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
        readme = hosting.readme(found, key, {"encoder": "here()"})
        assert words in readme and "https://creativecommons.org/licenses/by/4.0/" in readme
    data = huggingface_hub.ModelCard(readme).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["datasets"] == ["ILSVRC/imagenet-1k"]
    assert data["library_name"] == "tfhub" and data["pipeline_tag"] == "image-feature-extraction"
    assert "untrained" not in data["tags"]
    found = stated(found, source="file", license="apache-2.0")  # as its publisher says
    assert found.license.kaggle == "Apache 2.0" and "file, Apache 2.0; " in hosting.notes(found)


def test_the_header_of_an_untrained_decoder_says_so(build_decoder):
    found = artifact.read(str(build_decoder("block1_conv2")))
    readme = hosting.readme(found, "huggingface", {"encoder": "e()", "decoder": "d()"})
    data = huggingface_hub.ModelCard(readme).data.to_dict()
    assert (data["license"], data["pipeline_tag"]) == ("mit", "image-to-image")
    assert "untrained" in data["tags"] and "datasets" not in data
