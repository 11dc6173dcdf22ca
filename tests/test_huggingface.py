"""Publishing on Hugging Face by the real huggingface_hub, which talks to a loopback stand-in."""

import dataclasses
import os
import sys

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from export import card, checksums
from publish import huggingface, tree
from tests import fake_huggingface
from tests.conftest import ROOT

REPOSITORY = "emilutz/vgg19-block2-conv2-unpooling-encoder"


@pytest.fixture
def server():
    server = fake_huggingface.HuggingFace()
    yield server
    server.close()


@pytest.fixture
def publish(server, build, run_command, tmp_path):
    """Runs the command; no secret is ever printed."""

    def run(*arguments, artifact=None, **environment):
        environment = {**server.environment, "HF_HOME": str(tmp_path / "home"), **environment}
        artifact = artifact or build("block2_conv2")
        result = run_command(
            "-m", "publish.huggingface", f"--artifact={artifact}", *arguments, **environment
        )
        for secret in (fake_huggingface.TOKEN, fake_huggingface.SIGNATURE):
            assert secret not in result.stdout + result.stderr
        return result

    return run


def reason(result):
    """The one line of a failure that is the command's own; bars of progress may follow."""
    assert result.returncode == 1, result.stdout + result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("publish.huggingface: ")]
    assert "Traceback" not in result.stderr
    return line


def commits(server):
    return server.repositories[REPOSITORY]["commits"]


def recipe():
    """What docs/publishing.md says, for the layer that is published here."""
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    (block,) = [block for block in card.code_blocks(text) if "import huggingface_hub" in block]
    assert 'repository = "' in block
    return block.replace("block5-conv2", "block2-conv2")


def test_what_is_published_is_what_is_downloaded_and_its_page_runs_as_printed(
    server, publish, saved_model, run_command, tmp_path
):
    result = publish()
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == [
        f"{server.url}/{REPOSITORY}/commit/{1:040x}",
        "done",
    ]
    assert not server.repositories[REPOSITORY]["private"]
    (commit,) = commits(server)
    assert commit["title"] == "vgg19-block2-conv2-unpooling-encoder/1"
    assert "untrained: random weights from seed 0" in commit["description"]
    directory = saved_model("block2_conv2")
    for name in ("saved_model.pb", "fingerprint.pb", "variables/variables.index"):
        with open(os.path.join(directory, name), "rb") as file:
            assert commit["files"][name] == file.read()
    readme = commit["files"]["README.md"].decode()
    assert f'MODULE_URL = huggingface_hub.snapshot_download("{REPOSITORY}")\n' in readme

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
        HF_HOME=str(tmp_path / "home"),
    )
    assert result.returncode == 0, result.stderr


def read_header(header):
    return huggingface_hub.ModelCard(header).data.to_dict()


def test_the_header_files_the_model(build):
    module = tree.read_module(str(build("block2_conv2")))
    header = huggingface.header(module)
    assert header.startswith("---\n") and header.endswith("\n---\n\n")
    assert read_header(header) == {
        "license": "mit",
        "library_name": "tfhub",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["tensorflow", "saved-model", "vgg19", "unpooling", "style-transfer", "untrained"],
    }


def test_the_header_of_imagenet_weights_names_the_dataset(build):
    module = tree.read_module(str(build("block2_conv2")))
    metadata = {**module.page.metadata, "dataset": ["imagenet-ilsvrc-2012-cls"]}
    trained = dataclasses.replace(
        module,
        manifest={"kind": "encoder", "weights": {"source": "imagenet"}},
        page=dataclasses.replace(module.page, metadata=metadata),
    )
    found = read_header(huggingface.header(trained))
    assert found["datasets"] == ["ILSVRC/imagenet-1k"]
    assert "untrained" not in found["tags"]


def test_the_same_again_makes_no_new_commit(server, publish):
    assert publish().returncode == 0
    result = publish()
    assert result.returncode == 0, result.stderr
    assert "No files have been modified" in result.stderr
    assert len(commits(server)) == 1


def test_another_version_takes_the_place_of_the_old_and_leaves_what_is_the_owners(
    server, publish, build
):
    assert publish().returncode == 0
    commits(server)[0]["files"]["LICENSE"] = b"mine"
    commits(server)[0]["files"]["variables/variables.data-00000-of-00002"] = b"old"
    result = publish(f"--repository={REPOSITORY}", artifact=build("block2_conv2", "int32"))
    assert result.returncode == 0, result.stderr
    old, new = (commit["files"] for commit in commits(server))
    assert new["saved_model.pb"] != old["saved_model.pb"]
    assert new["LICENSE"] == b"mine"
    assert set(old) - set(new) == {"variables/variables.data-00000-of-00002"}


def test_a_dry_run_prints_everything_and_sends_nothing(server, publish):
    result = publish("--dry_run", HF_TOKEN="")
    assert result.returncode == 0, result.stderr
    assert server.requests == []
    lines = result.stdout.splitlines()
    assert lines[0] == f"to      {server.url}/{REPOSITORY}"
    assert lines[1] == "if new  public"
    assert lines[2] == "commit  vgg19-block2-conv2-unpooling-encoder/1"
    assert lines[-1] == "dry run: nothing was sent"
    # And then just that is sent.
    assert publish().returncode == 0
    (commit,) = commits(server)
    assert lines[3] == f"notes   {commit['description']}"
    for name, content in commit["files"].items():
        digest = checksums.digest(content)
        assert f"{digest['sha256']}  {digest['bytes']:>11,} bytes  {name}" in lines
    assert sum(" bytes  " in line for line in lines) == len(commit["files"])
    assert commit["files"]["README.md"].decode() in result.stdout


def test_another_repository_may_be_given_and_be_private(server, publish):
    assert publish("--repository=emilutz/mine", "--private").returncode == 0
    assert server.repositories["emilutz/mine"]["private"]
    assert list(server.repositories) == ["emilutz/mine"]


@pytest.mark.parametrize("repository", ["mine", "a/b/c", "a b/c", "../c", "a/"])
def test_a_repository_of_another_form_is_refused_before_anything_is_sent(build, repository):
    with pytest.raises(ValueError, match=r"--repository must be OWNER/NAME\. Received: "):
        huggingface.publish(str(build("block2_conv2")), repository, private=False, dry_run=False)


def test_a_decoder_names_its_encoder(publish, server, build_decoder):
    result = publish("--dry_run", artifact=build_decoder("block2_conv2"))
    assert result.returncode == 0, result.stderr
    for half in ("encoder", "decoder"):
        name = f"emilutz/vgg19-block2-conv2-unpooling-{half}"
        download = f'{half.upper()}_URL = huggingface_hub.snapshot_download("{name}")\n'
        assert download in result.stdout
    assert result.stdout.startswith(f"to      {server.url}/{name}\n")
    assert "pipeline_tag: image-to-image\n" in result.stdout


def test_without_a_token_it_says_where_it_goes(publish):
    message = reason(publish(HF_TOKEN=""))
    assert f"Hugging Face has not taken {REPOSITORY}: " in message
    assert "401" in message
    assert "huggingface_hub/quick-start#authentication" in message


def test_another_owners_name_is_refused_in_one_line(publish):
    assert "403" in reason(publish("--repository=google/mine"))


FAULTS = {
    "the file is refused": ("PUT /lfs", [403], "403"),
    "the server fails at the first call": ("POST /api/repos", [500], "500"),
    "the server fails at the last call": ("POST /api/models", [413], "413"),
    "the connection breaks at the first call": ("POST /api/repos", ["cut"], "disconnected"),
}


@pytest.mark.parametrize("beginning, answers, words", FAULTS.values(), ids=FAULTS)
def test_a_refusal_is_one_line_and_the_command_can_be_repeated(
    server, publish, beginning, answers, words
):
    server.faults[beginning] = list(answers)
    message = reason(publish())
    assert words in message
    assert "can be repeated" in message
    assert not server.repositories or not commits(server)
    result = publish()
    assert result.returncode == 0, result.stderr
    assert len(commits(server)) == 1


def test_a_connection_that_breaks_once_is_taken_up_again(server, publish):
    server.faults["PUT /lfs"] = ["cut"]
    result = publish()
    assert result.returncode == 0, result.stderr
    (commit,) = commits(server)
    assert len(commit["files"]) == 8


def test_no_connection_at_all_is_one_line(server, publish):
    server.close()
    assert "Connection refused" in reason(publish())


def test_without_huggingface_hub_it_says_how_to_get_it(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface_hub"):
        huggingface.publish(str(build("block2_conv2")), None, private=False, dry_run=True)


def test_an_incomplete_artifact_is_refused_before_anything_is_sent(server, publish, tmp_path):
    (tmp_path / "vgg19-block2-conv2").mkdir()
    message = reason(publish(artifact=tmp_path / "vgg19-block2-conv2"))
    assert "is not a complete artifact" in message
    assert server.requests == []
