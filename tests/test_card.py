"""The card: the hub's rules, the facts of the archive, and code that runs as printed."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from export import card
from unpooling import vgg19
from unpooling.weights import Weights

SOURCES = {
    "imagenet": Weights({}, "imagenet"),
    "random": Weights({}, "random", seed=7),
    "file": Weights({}, "file", file_name="mine.h5", file_sha256="0123abcd"),
}


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "encoder.tar.gz"
    path.write_bytes(b"content of an archive")
    return str(path)


def render(archive, layer="block5_conv2", source="random", **changes):
    arguments = {
        "layer": layer,
        "index_dtype": "int64",
        "pooling": "argmax",
        "weights": SOURCES[source],
        "archive_path": archive,
        "publisher": "emilutz",
        "model_version": 1,
        "asset_url": "https://example.com/models",
        "dataset": "other",
    }
    return card.render("encoder", **{**arguments, **changes})


def check(text, archive, layer="block5_conv2", index_dtype="int64", pooling="argmax"):
    card.check(text, layer=layer, index_dtype=index_dtype, pooling=pooling, archive_path=archive)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("layer", vgg19.LAYERS)
def test_every_card_keeps_the_rules(archive, layer, source):
    text = render(archive, layer, source)
    check(text, archive, layer)
    assert "{{" not in text
    assert "{%" not in text
    assert "\n\n\n" not in text
    assert text.endswith("\n")


def test_the_head_of_the_flagships_card(archive):
    assert render(archive).split("## Overview")[0] == (
        "# Module emilutz/vgg19-block5-conv2-unpooling-encoder/1\n\n"
        "Untrained (random weights): VGG19 up to `block5_conv2` that returns, besides its "
        "features, where every max-pooling maximum came from.\n\n"
        "<!-- asset-path: https://example.com/models/vgg19-block5-conv2/encoder.tar.gz -->\n"
        "<!-- task: image-feature-vector -->\n"
        "<!-- fine-tunable: true -->\n"
        "<!-- dataset: other -->\n"
        "<!-- format: saved_model_2 -->\n"
        "<!-- network-architecture: vgg-style -->\n"
        "<!-- license: mit -->\n\n"
    )


def test_the_outputs_are_those_of_the_published_module():
    assert card.outputs("block5_conv2", "int64") == [
        {"name": "features", "dtype": "float32", "shape": "(B, H/16, W/16, 512)"},
        {"name": "block1_indices", "dtype": "int64", "shape": "(B * H * W * 16, 4)"},
        {"name": "block2_indices", "dtype": "int64", "shape": "(B * H * W * 8, 4)"},
        {"name": "block3_indices", "dtype": "int64", "shape": "(B * H * W * 4, 4)"},
        {"name": "block4_indices", "dtype": "int64", "shape": "(B * H * W * 2, 4)"},
    ]
    assert card.outputs("block1_conv2", "int32") == [
        {"name": "features", "dtype": "float32", "shape": "(B, H, W, 64)"}
    ]


def first_paragraph(text):
    return text.split("### Module description\n\n")[1].split("\n\n")[0]


def test_a_card_says_where_the_weights_come_from(archive):
    assert "untrained" in first_paragraph(render(archive, source="random"))
    assert "seed 7" in render(archive, source="random")
    for source in ("imagenet", "file"):
        assert "untrained" not in render(archive, source=source).lower()
    imagenet = render(archive, source="imagenet")
    assert "ImageNet" in first_paragraph(imagenet)
    assert "<!-- dataset: imagenet-ilsvrc-2012-cls -->" in imagenet
    assert "CC BY 4.0" in imagenet
    # What a file holds is its publisher's to say.
    file = render(archive, source="file")
    assert "ImageNet" not in first_paragraph(file)
    assert "<!-- dataset: other -->" in file
    assert "`mine.h5`" in file
    assert "0123abcd" in file
    stated = render(archive, source="file", dataset="imagenet-ilsvrc-2012-cls")
    assert "<!-- dataset: imagenet-ilsvrc-2012-cls -->" in stated
    assert "The publisher states" in stated


def test_a_card_says_how_it_gets_on_with_xla(archive):
    assert "which XLA cannot compile" in render(archive)
    xla = render(archive, pooling="xla")
    check(xla, archive, pooling="xla")
    with pytest.raises(ValueError, match="missing: The maxima are found by `tf"):
        check(xla, archive)
    assert "may stand inside `tf.function(jit_compile=True)`" in xla
    assert "cannot compile" not in xla


def test_publisher_version_and_url_come_from_the_flags(archive):
    text = render(
        archive, publisher="someone-else", model_version=12, asset_url="http://127.0.0.1:8000/"
    )
    assert text.startswith("# Module someone-else/vgg19-block5-conv2-unpooling-encoder/12\n")
    assert "<!-- asset-path: http://127.0.0.1:8000/vgg19-block5-conv2/encoder.tar.gz -->" in text
    check(text, archive)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("# Module", "# Model", "first line must be `# Module PUBLISHER/NAME/VERSION`"),
        ("emilutz/", "Emil Utz/", "first line must be"),
        ("encoder/1\n", "encoder/one\n", "first line must be"),
        ("# Module emilutz/vgg19-block5", "# Module emilutz/vgg19-block4", "name must be vgg19-b"),
        ("Untrained (random weights): VGG19", "<!-- VGG19", "followed by a description"),
        ("maximum came from.\n\n<!--", "maximum came from\n\n<!--", "one-sentence description"),
        (
            "<!-- task: image-feature-vector -->\n",
            "",
            "metadata of a Module must be asset-path",
        ),
        (
            "<!-- license: mit -->",
            "<!-- license: mit -->\n<!-- colab: x -->",
            "metadata must be asset-path, dataset, fine-tunable",
        ),
        (
            "<!-- license: mit -->",
            "<!-- license: mit -->\n<!-- license: mit -->",
            "`license` appears twice",
        ),
        ("license: mit", "license: bsd", "`license` must be one of the hub's tags (apache-2.0, "),
        (
            "fine-tunable: true",
            "fine-tunable: yes",
            "`fine-tunable` must be one of",
        ),
        ("format: saved_model_2", "format: hub", "`format` must be saved_model_2"),
        ("dataset: other", "dataset: My Photos", "`dataset` must be one of the hub's tags"),
        ("encoder.tar.gz -->", "other.tar.gz -->", "`asset-path` must end in /vgg19-block5-conv2/"),
        ("<!-- license: mit -->", "license: mit", "only metadata comments may stand"),
        ("## Overview", "## Summary", "section `## Overview` is missing"),
        ("## Usage", "## How", "section `## Usage` is missing"),
        ("## Training", "## History", "section `## Training` is missing"),
        ("`(B, H/16, W/16, 512)` |", "`(B, H/8, W/8, 512)` |", "is missing: | `features`"),
        ("`(B * H * W * 16, 4)` |", "`(B * H * W * 61, 4)` |", "is missing: | `block1_indices`"),
        ("28 trainable", "82 trainable", "is missing: 28 trainable variables with 15,304,768"),
        ("21 bytes", "22 bytes", "is missing: `encoder.tar.gz`: 21 bytes"),
        ("encoder = hub.Keras", "encoder == = hub.Keras", "code block does not compile"),
    ],
)
def test_a_card_that_breaks_a_rule_is_refused(archive, old, new, words):
    text = render(archive)
    assert old in text
    with pytest.raises(ValueError, match=re.escape(words).replace(r"\.\*", ".*")):
        check(text.replace(old, new, 1), archive)


def test_a_card_of_another_archive_is_refused(archive, tmp_path):
    text = render(archive)
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"content of an4rchive!")
    with pytest.raises(ValueError, match="SHA-256"):
        check(text, str(other))
    with pytest.raises(ValueError, match="int32"):
        check(text, archive, index_dtype="int32")
    with pytest.raises(ValueError, match="name must be vgg19-block4-conv2-unpooling-encoder"):
        check(text, archive, layer="block4_conv2")


@pytest.mark.parametrize("layer", ["block5_conv2", "block3_conv2", "block1_conv2"])
def test_the_usage_code_runs_as_printed(build, serve, run_command, tmp_path, layer):
    directory = build(layer)
    text = (directory / "encoder.md").read_text(encoding="utf-8")
    published = re.search(r"<!-- asset-path: (\S+) -->", text)[1]
    local = f"{serve(directory)}/encoder.tar.gz"
    blocks = card.code_blocks(text)
    assert len(blocks) == (3 if layer == "block1_conv2" else 4)
    program = "\n".join(blocks)
    assert published in program
    program = program.replace(published, local)
    # Sides that are not multiples of 16, as a photograph has them.
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    scale = vgg19.downsampling(layer)
    checks = f"assert features.shape[1:3] == (53 // {scale}, 70 // {scale}), features.shape\n"
    checks += "assert all(g is not None for g in gradients) and len(gradients) == 2\n"
    if layer != "block1_conv2":
        checks += (
            "assert list(unpooled.shape) == shape\n"
            "assert tf.math.count_nonzero(unpooled) <= tf.size(unpooled, tf.int64) // 4\n"
        )
    (tmp_path / "usage.py").write_text(program + checks, encoding="utf-8")
    result = run_command(tmp_path / "usage.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_built_card_describes_the_built_archive(build):
    directory = build("block2_conv2", "int32")
    text = (directory / "encoder.md").read_text(encoding="utf-8")
    check(text, str(directory / "encoder.tar.gz"), "block2_conv2", "int32")
    assert f"{pathlib.Path(directory / 'encoder.tar.gz').stat().st_size:,} bytes" in text
