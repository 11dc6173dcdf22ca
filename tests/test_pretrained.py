"""The trained decoders that ship: what they are, that they load, and for which encoder they are."""

import re

import pytest

from export import build
from export.spec import Spec
from tests.conftest import ROOT
from training.config import TrainConfig
from unpooling import archive, tiling, vgg19, weights
from unpooling.decoder import Decoder
from unpooling.encoder import Encoder
from unpooling.errors import UserError

SHIPPED = weights.pretrained_decoders()
CARD = " ".join(
    (ROOT / "unpooling" / "pretrained" / "README.md").read_text(encoding="utf-8").split()
)
DIGESTS = dict(
    re.findall(r"^\| `(\w+)` \| `(\w{64})` \|$", (ROOT / "docs" / "weights.md").read_text(), re.M)
)


def test_they_are_those_of_blocks_1_to_3_and_small():
    assert tuple(SHIPPED) == vgg19.LAYERS[:3]
    folder = ROOT / "unpooling" / "pretrained"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 7e6
    assert {path.name for path in folder.iterdir()} == {*(f"{n}.h5" for n in SHIPPED), "README.md"}


@pytest.mark.parametrize("layer", SHIPPED)
def test_each_was_trained_for_imagenets_weights_and_says_how_well_it_does(layer):
    decoder = Decoder.load(layer)
    names = [convolution.name for convolution in vgg19.convolutions(layer)]
    assert decoder.trained_for == {name: DIGESTS[name] for name in names}
    training = weights.load_decoder("pretrained", layer).training
    assert training.layer == layer
    error = f"{training.evaluation['error']:.3f}"
    *_, (_, last) = re.findall(rf"--layer={layer} ([^#]*)# (\S+)", CARD)
    assert last == error
    [stated] = re.findall(r"On these 75 together the errors are (\S+), (\S+) and (\S+), as", CARD)
    assert stated[list(SHIPPED).index(layer)] == error
    wanted = {n: v for n, v in training.flags.items() if v is not None and "sha256" not in n}
    assert TrainConfig(**wanted).layer == layer  # The command can be given again.


@pytest.mark.parametrize("layer", vgg19.LAYERS[3:])
def test_for_the_deeper_ones_one_line_says_how_to_train_one(layer):
    with pytest.raises(
        UserError, match=f"no trained decoder for {layer} ships, .* --layer={layer}"
    ):
        Decoder.load(layer)


def test_a_pair_that_does_not_belong_together_is_refused(saved_model):
    import unpooling

    layer, deeper = vgg19.LAYERS[:2]
    random = Encoder.load(layer, "random")
    shipped, digests = Decoder.load(layer), weights.load("random", layer).digests
    images = [[[[0.0, 1.0, 2.0]] * 8] * 8]
    for encoder in (random, unpooling.load(saved_model(layer)), Encoder.load(deeper, "random")):
        for pair in (
            lambda encoder=encoder: Decoder.load(layer, encoder=encoder),
            lambda encoder=encoder: shipped.check_encoder(encoder),
            lambda encoder=encoder: tiling.reconstruct(encoder, shipped, images),
        ):
            with pytest.raises(UserError, match=f"trained for the encoder of `{layer}` with cert"):
                pair()
    own = Decoder(layer, Decoder.load(layer).weights, trained_for=digests)
    own.check_encoder(random)
    own.check_encoder(unpooling.load(saved_model(layer)))
    Decoder.load(layer, "random", encoder=random)  # Of a random one nothing is known.


def test_an_archive_is_the_same_by_name_and_by_path(tmp_path):
    layer, found = "block1_conv2", []
    for name, source in (("name", "pretrained"), ("path", SHIPPED["block1_conv2"])):
        folder = build.build_decoder(
            Spec("decoder", layer), source, output_dir=str(tmp_path / name), verify=False
        )
        found.append(archive.read(f"{folder}/decoder.tar.gz").sha256)
    assert found[0] == found[1]
