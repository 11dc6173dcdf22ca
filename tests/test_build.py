"""Building as functions: what is written, what is refused, and that errors leave nothing."""

import os
import resource
import shutil

import numpy as np
import pytest

from export import artifact, build
from export.spec import Publication, Spec
from unpooling import weights
from unpooling.errors import UserError
from unpooling.training_record import TrainingRecord

ENCODER, DECODER = Spec("encoder", "block1_conv2"), Spec("decoder", "block1_conv2")


@pytest.fixture
def old(build, tmp_path):
    """A folder that holds the artifact of seed 0."""
    shutil.copytree(build(ENCODER.layer), tmp_path / ENCODER.folder_name)
    return tmp_path


def build_encoder(output_dir, **options):
    options = {"verify": False, **options}
    return build.build(ENCODER, "random", output_dir=str(output_dir), **options)


def files(output_dir):
    return {str(path): path.read_bytes() for path in output_dir.rglob("*") if path.is_file()}


def write_decoder(path, layer):
    """Writes weights that are not the seeded ones, and returns them and their training record."""
    encoder = {"source": "random", "seed": 0, "sha256": weights.load("random", layer).digests}
    flags, evaluation = {"by `me`": "a|b\n<b>"}, {"photographs": 1203, "error": 3.14159}
    training = TrainingRecord(layer, encoder, flags, {"train": 90}, 12, 1.5, {}, evaluation)
    layers = {
        name: (kernel * np.float32(1.5), bias + np.float32(0.5))
        for name, (kernel, bias) in weights.load_decoder("random", layer, 5).layers.items()
    }
    weights.save(str(path), layers, training)
    return weights.Weights(layers, "file", training=training)


def test_both_halves_are_complete_artifacts(build, build_decoder):
    for folder, spec in ((build(ENCODER.layer), ENCODER), (build_decoder(ENCODER.layer), DECODER)):
        assert folder.name == spec.folder_name
        assert sorted(os.listdir(folder)) == sorted(spec.files)
        assert artifact.read(str(folder)).spec == spec


def test_what_was_built_is_checked_before_it_is_put_in_place(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(build.verifier, "run_in_fresh_process", checked.append)
    folder = build_encoder(tmp_path / "out", verify=True)
    assert folder == str(tmp_path / "out" / "vgg19-block1-conv2")
    (path,) = checked
    assert os.path.basename(path) == "encoder.tar.gz"
    assert not path.startswith(folder)


def test_an_existing_artifact_is_replaced_only_with_overwrite(old, monkeypatch):
    before = files(old)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "load", lambda *_: pytest.fail("too late"))
        with pytest.raises(UserError, match=r"already holds .*: pass --overwrite"):
            build_encoder(old, seed=1)
    assert files(old) == before
    build_encoder(old, seed=1, overwrite=True)
    assert artifact.read(str(old / ENCODER.folder_name)).manifest["weights"]["seed"] == 1
    assert set(files(old)) == set(before)


@pytest.mark.parametrize(
    "step",
    ["weights.load", "saved_model.save", "card.render", "verifier.run_in_fresh_process"],
)
def test_whatever_goes_wrong_leaves_the_old_artifact(old, monkeypatch, step):
    before = files(old)
    reached = []

    def fail(*_):
        reached.append(step)
        raise KeyboardInterrupt

    module, name = step.split(".")
    monkeypatch.setattr(getattr(build, module), name, fail)
    with pytest.raises(KeyboardInterrupt):
        build_encoder(old, seed=1, overwrite=True, verify=True)
    assert reached == [step]
    assert files(old) == before
    assert os.listdir(old) == [ENCODER.folder_name]


def test_a_full_disk_leaves_the_old_artifact(old):
    before = files(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"the SavedModel cannot be written: .*File too large"):
            build_encoder(old, seed=1, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(old) == before
    assert os.listdir(old) == [ENCODER.folder_name]


def test_weights_of_a_file_and_the_publication_are_in_manifest_and_card(tmp_path):
    held = weights.load("random", ENCODER.layer, 7)
    weights.save(str(tmp_path / "mine.h5"), held.layers)
    publication = Publication("someone", 3, "https://example.com/a", "coco-2017")
    options = {"publication": publication, "output_dir": str(tmp_path / "out"), "verify": False}
    folder = build.build(ENCODER, str(tmp_path / "mine.h5"), **options)
    found = artifact.read(folder)
    assert (found.page.publisher, found.page.version) == ("someone", 3)
    assert found.page.metadata["dataset"] == "coco-2017"
    assert found.asset_path == "https://example.com/a/vgg19-block1-conv2/encoder.tar.gz"
    assert found.manifest["weights"]["layers"] == held.digests
    flags = found.manifest["flags"]
    assert (flags["weights"], flags["dataset"]) == ("mine.h5", "coco-2017")
    assert "seed" not in flags
    for name in ("encoder.md", "encoder.manifest.json"):
        text = (tmp_path / "out" / ENCODER.folder_name / name).read_text(encoding="utf-8")
        assert "mine.h5" in text
        assert str(tmp_path) not in text


def test_the_weights_are_by_default_the_published_ones(tmp_path, monkeypatch):
    write_decoder(tmp_path / "decoder.h5", DECODER.layer)
    held = weights.load("random", ENCODER.layer)
    shipped = {DECODER.layer: str(tmp_path / "decoder.h5")}
    monkeypatch.setattr(weights, "pretrained_decoders", lambda: shipped)
    monkeypatch.setattr(weights, "_imagenet", lambda: held.layers)
    for spec, source in ((ENCODER, "imagenet"), (DECODER, "pretrained")):
        folder = build.build(spec, output_dir=str(tmp_path / "out"), verify=False)
        assert artifact.read(folder).manifest["flags"]["weights"] == source


def test_a_decoder_carries_what_its_file_says_of_its_training(tmp_path):
    held = write_decoder(tmp_path / "decoder.h5", DECODER.layer)
    folder = build.build(
        DECODER, str(tmp_path / "decoder.h5"), output_dir=str(tmp_path), verify=False
    )
    found = artifact.read(folder)
    assert found.manifest["weights"]["training"] == held.training.to_dict()
    assert found.manifest["weights"]["layers"] == held.digests
    assert found.error == 3.14159
    text = (tmp_path / DECODER.folder_name / "decoder.md").read_text(encoding="utf-8")
    assert "3.142 of 255" in text
    assert "<b>" not in text


@pytest.mark.parametrize("spec", [ENCODER, DECODER], ids=str)
def test_both_halves_take_the_same_seeds(tmp_path, spec):
    folder = build.build(spec, "random", seed=2**63 - 1, output_dir=str(tmp_path), verify=False)
    assert artifact.read(folder).manifest["weights"]["seed"] == 2**63 - 1
