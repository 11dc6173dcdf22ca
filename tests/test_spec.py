"""What a module is called, what it holds and returns, and where it is published."""

import PIL.Image
import pytest

from export.spec import Publication, Spec
from unpooling import vgg19
from unpooling.errors import UserError


def test_names_say_layer_and_kind():
    encoder, decoder = Spec("encoder", "block5_conv2"), Spec("decoder", "block3_conv2")
    assert encoder.name == "vgg19-block5-conv2-unpooling-encoder"
    assert encoder.folder_name == "vgg19-block5-conv2"
    endings = ("tar.gz", "md", "png", "manifest.json")
    assert encoder.files == (*(f"encoder.{ending}" for ending in endings), "SHA256SUMS")
    assert encoder.archive_name == "encoder.tar.gz"
    assert encoder.variable_count == 28
    assert decoder.name == "vgg19-block3-conv2-unpooling-decoder"
    assert decoder.folder_name == "vgg19-block3-conv2-decoder"
    assert decoder.files[:4] == tuple(name.replace("en", "de", 1) for name in encoder.files[:4])


def test_outputs_are_those_of_the_design():
    rows = Spec("encoder", "block5_conv2", "int32").outputs
    assert [tuple(row.values()) for row in rows] == [
        ("features", "float32", "(B, H/16, W/16, 512)"),
        ("block1_indices", "int32", "(B * H * W * 16, 4)"),
        ("block2_indices", "int32", "(B * H * W * 8, 4)"),
        ("block3_indices", "int32", "(B * H * W * 4, 4)"),
        ("block4_indices", "int32", "(B * H * W * 2, 4)"),
    ]
    (row,) = Spec("encoder", "block1_conv2").outputs
    assert tuple(row.values()) == ("features", "float32", "(B, H, W, 64)")
    decoder = Spec("decoder", "block2_conv2").outputs
    assert [row["dtype"] for row in decoder] == ["float32", "int64 or int32"]


@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_each_half_of_a_pair_has_its_own_names_and_diagram(layer):
    encoder, decoder = Spec("encoder", layer), Spec("decoder", layer)
    assert Spec("encoder", layer, "int32", "xla").mate == decoder
    assert decoder.mate == encoder
    assert encoder.parameter_count == vgg19.count_parameters(layer)
    assert decoder.parameter_count == vgg19.count_parameters(layer, "decoder")
    more = vgg19.after_unpooling(layer)
    assert [f"decoder_{c.name}" for c in encoder.convolutions[::-1]] == [
        c.name for c in decoder.convolutions if c not in more
    ]
    for name in ("name", "folder_name", "archive_name", "diagram"):
        assert getattr(encoder, name) != getattr(decoder, name)
    for spec in (encoder, decoder):
        with PIL.Image.open(spec.diagram) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert 900 <= picture.height <= 1100


def test_what_has_nothing_to_choose_has_no_engine_and_no_index_dtype():
    assert Spec("encoder", "block1_conv2", "int32", "xla") == Spec("encoder", "block1_conv2")
    for spec in (Spec("encoder", "block1_conv2"), Spec("decoder", "block5_conv2", "int32")):
        assert (spec.index_dtype, spec.engine) == (None, None)
    assert str(spec) == "decoder for block5_conv2"
    spec = Spec("encoder", "block2_conv2")
    assert (spec.index_dtype, spec.engine) == ("int64", "argmax")
    assert str(spec) == "encoder for block2_conv2, int64 indices, argmax pooling"
    place = Publication(asset_url="https://example.com/models/").url(spec, "encoder.md")
    assert place == "https://example.com/models/vgg19-block2-conv2/encoder.md"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("coder", "block1_conv2"), "`kind` must be one of encoder, decoder. Received: coder."),
        (("encoder", "block6_conv2"), "`layer` must be one of block1_conv2, .* block6_conv2."),
        (("encoder", "block2_conv2", "int16"), "`index_dtype` must be one of int64, int32."),
        (("encoder", "block2_conv2", "int64", "max"), "`engine` must be one of argmax, xla."),
        (("encoder", "block2_conv2", None), "`index_dtype` must be one of"),
    ],
)
def test_what_is_no_module_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        Spec(*arguments)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"publisher": "Emil Utz"}, "`publisher` must consist of lower-case letters"),
        ({"publisher": "emil\n"}, "`publisher` must consist of lower-case letters"),
        ({"model_version": 0}, "`model_version` must be at least 1"),
        ({"asset_url": "example.com"}, "`asset_url` must be an http or https URL"),
        ({"asset_url": 'https://a.b/"> x'}, "`asset_url` must be an http or https URL"),
        ({"asset_url": "https://github.com/a/b/releases/download"}, "not that of a GitHub release"),
        ({"asset_url": "https://example.org/my%20models"}, "of letters, digits and"),
        ({"dataset": "My Photos"}, "`dataset` must be a dataset tag of the hub"),
        ({"license": "gpl"}, "`license` must be one of mit, "),
    ],
)
def test_what_no_page_may_say_is_refused(fields, words):
    with pytest.raises(UserError, match=words):
        Publication(**fields)
