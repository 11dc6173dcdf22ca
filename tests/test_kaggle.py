"""Publishing on Kaggle by the real kagglehub, which talks to a stand-in on the loopback."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from export import card, checksums, manifest
from publish import kaggle, tree
from tests import fake_kaggle
from tests.conftest import ROOT

HANDLE = "emilutz/vgg19-unpooling-encoder/tensorFlow2/block2-conv2"


@pytest.fixture
def server():
    server = fake_kaggle.Kaggle()
    yield server
    server.close()


@pytest.fixture
def publish(server, build, run_command, tmp_path):
    """Runs the command; no secret is ever printed."""
    (tmp_path / "home").mkdir()

    def run(*arguments, artifact=None, **environment):
        environment = {**server.environment, "HOME": str(tmp_path / "home"), **environment}
        artifact = artifact or build("block2_conv2")
        result = run_command(
            "-m", "publish.kaggle", f"--artifact={artifact}", *arguments, **environment
        )
        for secret in (fake_kaggle.TOKEN, fake_kaggle.SIGNATURE):
            assert secret not in result.stdout + result.stderr
        return result

    return run


def reason(result):
    """The last line of a failure, the only one that is the command's own."""
    assert result.returncode == 1, result.stdout + result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("publish.kaggle: ")
    assert "Traceback" not in result.stderr
    return last


def recipe():
    """What docs/publishing.md says, for the layer that is published here."""
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    (block,) = [block for block in card.code_blocks(text) if "import kagglehub" in block]
    assert 'handle = "' in block
    return block.replace("block5-conv2", "block2-conv2")


def test_what_is_published_is_what_is_downloaded_and_its_page_runs_as_printed(
    server, publish, saved_model, run_command, tmp_path
):
    result = publish()
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "done"
    (body,) = server.bodies
    assert body["licenseName"] == "MIT"
    (files,) = server.versions[HANDLE]
    directory = saved_model("block2_conv2")
    for name in ("saved_model.pb", "fingerprint.pb", "variables/variables.index"):
        with open(os.path.join(directory, name), "rb") as file:
            assert files[name] == file.read()
    beside = {"README.md", "SHA256SUMS", "encoder.manifest.json", "encoder.png"}
    assert set(files) == beside | {
        *("saved_model.pb", "fingerprint.pb", "variables/variables.index"),
        "variables/variables.data-00000-of-00001",
    }
    readme = files["README.md"].decode()
    assert f'MODULE_URL = kagglehub.model_download("{HANDLE}")\n' in readme

    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    program = "\n".join(card.code_blocks(readme.replace("photo.jpg", "photo.png")))
    program += f"""
assert unpooled.shape == (1, 52, 70, 64)
original = hub.load({directory!r})(images)
assert (features == original[0]).numpy().all()

{recipe()}
assert (encoder(images)[0] == original[0]).numpy().all()
"""
    (tmp_path / "usage.py").write_text(program, encoding="utf-8")
    result = run_command(
        tmp_path / "usage.py",
        cwd=tmp_path,
        **server.environment,
        KAGGLEHUB_CACHE=str(tmp_path / "cache"),
    )
    assert result.returncode == 0, result.stderr


def test_again_it_becomes_a_new_version_with_notes_from_the_manifest(server, publish, build):
    assert publish().returncode == 0
    assert publish().returncode == 0
    assert len(server.versions[HANDLE]) == 2
    notes = server.bodies[1]["versionNotes"]
    stated = manifest.read(str(build("block2_conv2") / "encoder.manifest.json"))
    assert stated["archive"]["sha256"] in notes
    assert "untrained: random weights from seed 0" in notes


def test_a_dry_run_prints_everything_and_sends_nothing(server, publish):
    result = publish("--dry_run", KAGGLE_API_TOKEN="")
    assert result.returncode == 0, result.stderr
    assert server.requests == []
    lines = result.stdout.splitlines()
    assert lines[0] == f"to       http://localhost/models/{HANDLE}"
    assert lines[1] == "licence  MIT"
    assert lines[2].startswith("notes    vgg19-block2-conv2-unpooling-encoder/1: ")
    assert lines[-1] == "dry run: nothing was sent"
    # And then just that is sent.
    assert publish().returncode == 0
    (files,) = server.versions[HANDLE]
    for name, content in files.items():
        digest = checksums.digest(content)
        assert f"{digest['sha256']}  {digest['bytes']:>11,} bytes  {name}" in lines
    assert sum(" bytes  " in line for line in lines) == len(files)
    assert files["README.md"].decode() in result.stdout


def test_another_handle_may_be_given(server, publish):
    handle = "emilutz/my-model/tensorFlow2/small"
    assert publish(f"--handle={handle}").returncode == 0
    assert set(server.versions) == {handle}
    assert server.called("CreateModel")[0]["isPrivate"]


@pytest.mark.parametrize(
    "handle",
    [
        *("emilutz/my-model", f"{HANDLE}/3", "emilutz/my-model/keras/small"),
        *("a b/c/tensorFlow2/d", "../x/tensorFlow2/d"),
    ],
)
def test_a_handle_of_another_form_is_refused_before_anything_is_sent(build, handle):
    with pytest.raises(ValueError, match="must be OWNER/MODEL/tensorFlow2/VARIATION"):
        kaggle.publish(str(build("block2_conv2")), handle, dry_run=False)


@pytest.mark.parametrize(
    "layer, dtype, pooling, variation",
    [
        ("block1_conv2", "int64", "argmax", "block1-conv2"),
        ("block2_conv2", "int32", "argmax", "block2-conv2-int32"),
        ("block2_conv2", "int64", "xla", "block2-conv2-xla"),
    ],
)
def test_each_build_is_a_variation_of_its_own(build, layer, dtype, pooling, variation):
    module = tree.read_module(str(build(layer, dtype, pooling)))
    handle = f"emilutz/vgg19-unpooling-encoder/tensorFlow2/{variation}"
    assert kaggle.default_handle(module) == handle


def test_a_decoder_names_its_encoder(publish, build_decoder):
    result = publish("--dry_run", artifact=build_decoder("block2_conv2"))
    assert result.returncode == 0, result.stderr
    for half in ("encoder", "decoder"):
        handle = f"emilutz/vgg19-unpooling-{half}/tensorFlow2/block2-conv2"
        assert f'{half.upper()}_URL = kagglehub.model_download("{handle}")\n' in result.stdout
    assert result.stdout.startswith(f"to       http://localhost/models/{handle}\n")


def test_without_credentials_it_says_where_they_go(publish):
    message = reason(publish(KAGGLE_API_TOKEN=""))
    assert f"Kaggle has not taken {HANDLE}: 401 Client Error" in message
    assert "https://github.com/Kaggle/kagglehub#authenticate" in message


def test_another_owners_model_is_refused_in_one_line(publish):
    message = reason(publish("--handle=google/my-model/tensorFlow2/small"))
    assert "403" in message


FAULTS = {
    "the upload is refused": ("PUT", [503], "503"),
    "the server fails at the first call": ("GetModel", [500], "500"),
    "the server fails at the last call": ("CreateModelInstance", [500], "500"),
    "the licence is refused": (
        "CreateModelInstance",
        [{"error": "no such licence", "errorCode": 400}],
        "no such licence",
    ),
}


@pytest.mark.parametrize("method, answers, words", FAULTS.values(), ids=FAULTS)
def test_a_refusal_is_one_line_and_the_command_can_be_repeated(
    server, publish, method, answers, words
):
    server.faults[method] = list(answers)
    message = reason(publish())
    assert words in message
    assert "can be repeated" in message
    assert HANDLE not in server.versions
    result = publish()
    assert result.returncode == 0, result.stderr
    assert len(server.versions[HANDLE]) == 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, publish, build):
    server.faults["PUT"] = ["cut"]
    result = publish()
    assert result.returncode == 0, result.stderr
    assert "Network issue" in result.stdout + result.stderr
    resumed = [r for method, r in server.requests if method == "PUT" and "bytes 0-" not in r]
    assert len(resumed) == 2  # How much is there? The rest.
    module = manifest.read(str(build("block2_conv2") / "encoder.manifest.json"))
    (files,) = server.versions[HANDLE]
    for name, digest in module["members"].items():
        assert len(files[name]) == digest["bytes"]


def test_a_connection_that_breaks_for_good_is_no_success(server, build, monkeypatch):
    from kagglehub import gcs_upload

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gcs_upload.time, "sleep", lambda seconds: None)
    server.faults["PUT"] = ["cut"] * 10
    with pytest.raises(ConnectionError, match="was not uploaded completely"):
        kaggle.publish(str(build("block2_conv2")), None, dry_run=False)
    assert server.versions == {}


def test_no_connection_at_all_is_one_line(server, publish):
    server.close()
    assert "Connection refused" in reason(publish())


def test_without_kagglehub_it_says_how_to_get_it(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install kagglehub"):
        kaggle.publish(str(build("block2_conv2")), None, dry_run=True)


def test_an_incomplete_artifact_is_refused_before_anything_is_sent(server, publish, tmp_path):
    (tmp_path / "vgg19-block2-conv2").mkdir()
    message = reason(publish(artifact=tmp_path / "vgg19-block2-conv2"))
    assert "is not a complete artifact" in message
    assert server.requests == []
