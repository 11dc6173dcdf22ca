"""The folder of an artifact: read as one thing, refused if its files do not fit together."""

import json
import shutil

import pytest

from export import artifact, checksums, manifest
from export.spec import Spec
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

LAYER = "block1_conv2"


@pytest.fixture
def folder(build, tmp_path):
    """An encoder's artifact, to be changed."""
    return shutil.copytree(build(LAYER), tmp_path / "copy")


def refusal(folder):
    with pytest.raises(UserError) as caught:
        artifact.read(str(folder))
    message = str(caught.value)
    assert message.startswith(f"{folder} is not a complete artifact: ")
    assert message.isprintable()
    return message


def replace(folder, name, content):
    """Writes a file, and the checksums as somebody would who wants it to pass."""
    (folder / name).write_bytes(content)
    names = [path.name for path in folder.iterdir() if path.name != "SHA256SUMS"]
    checksums.write(str(folder), names)


def test_an_encoder_is_read(build):
    folder = build("block2_conv2", "int32", "xla")
    found = artifact.read(str(folder))
    assert found.spec == Spec("encoder", "block2_conv2", "int32", "xla")
    assert found.folder == str(folder)
    assert found.path("tar.gz") == str(folder / "encoder.tar.gz")
    assert found.archive_bytes == (folder / "encoder.tar.gz").stat().st_size
    assert found.asset_path == (
        "https://storage.googleapis.com/vgg19-with-unpooling/vgg19-block2-conv2/encoder.tar.gz"
    )
    assert found.manifest == json.loads((folder / "encoder.manifest.json").read_bytes())
    assert (found.source, found.error) == ("random: untrained", None)
    assert found.license.name == "mit"


def test_a_decoder_is_read(build_decoder):
    found = artifact.read(str(build_decoder(LAYER)))
    assert found.spec == Spec("decoder", LAYER)
    assert found.page.name == "vgg19-block1-conv2-unpooling-decoder"
    for evaluation, error in ((None, None), ({"photographs": 12, "error": 2.5}, 2.5)):
        record = TrainingRecord(LAYER, {"sha256": {}}, {}, {}, 1, 1.0, {}, evaluation)
        found.manifest["weights"]["training"] = record.to_dict()
        assert found.error == error


@pytest.mark.parametrize("name", Spec("encoder", LAYER).files)
def test_a_file_that_is_missing_not_listed_or_not_as_listed_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    assert ("it holds no archives" if name == "encoder.tar.gz" else name) in refusal(folder)
    if name != "SHA256SUMS":
        (folder / name).write_bytes(content + b"\n")
        assert f"{name} has the SHA-256 " in refusal(folder)
        (folder / name).write_bytes(content)
        lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
        (folder / "SHA256SUMS").write_text("".join(line for line in lines if name not in line))
        assert name in refusal(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encoder.tar.gz", "the member saved_model.pb differs"),
        ("encoder.md", "the module's name must be vgg19-block1-conv2"),
        ("encoder.manifest.json", "the member saved_model.pb differs"),
    ],
)
def test_a_file_of_another_artifact_is_refused_though_the_checksums_fit(folder, build, name, words):
    replace(folder, name, (build("block2_conv2") / name).read_bytes())
    assert words in refusal(folder)


def test_files_of_the_other_half_are_refused(folder, build_decoder):
    stated = manifest.read(str(folder / "encoder.manifest.json")) | {"kind": "decoder"}
    replace(folder, "encoder.manifest.json", json.dumps(stated).encode())
    assert refusal(folder).endswith(": the manifest is that of a decoder")
    shutil.copy(build_decoder(LAYER) / "decoder.tar.gz", folder)
    assert "it holds encoder and decoder archives" in refusal(folder)


def test_find_lists_the_folders_that_hold_an_archive(tmp_path):
    with pytest.raises(UserError, match=r"no folder in .* holds an encoder\.tar\.gz or a dec"):
        artifact.find(str(tmp_path))
    with pytest.raises(UserError, match=r"nowhere cannot be read: No such file or directory\."):
        artifact.find(str(tmp_path / "nowhere"))
    for name in ("b/encoder.tar.gz", "a/decoder.tar.gz", ".hidden/encoder.tar.gz", "c/notes.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "encoder.tar.gz").touch()
    assert artifact.find(str(tmp_path)) == [str(tmp_path / "a"), str(tmp_path / "b")]
