"""The card: the hub's rules, the facts of the archive, the license, and code that runs."""

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow_hub as hub
from PIL import Image

from export import card, hub_page, licenses, manifest
from export.spec import Publication, Spec
from unpooling import archive as archives
from unpooling.errors import UserError
from unpooling.weights import load_decoder

ARCHIVE = SimpleNamespace(size=21, sha256="12ab")
FLAGSHIP = Spec("encoder", "block5_conv2")


def record(source="imagenet", **changes):
    """What a file says of its training."""
    return {
        "layer": "block2_conv2",
        "encoder": {"source": source, "seed": None, "sha256": {"block1_conv1": "34cd"}},
        "flags": {"epochs": 3, "initial_weights": None},
        "photographs": {"train": 10},
        "steps": 30,
        "feature_scale": 1.5,
        "validation": {"l1": 0.25},
        "evaluation": None,
        **changes,
    }


def stated(spec=FLAGSHIP, source="random", training=None, **flags):
    """A manifest, as far as a card needs it."""
    weights = {"source": source, "seed": 7 if source == "random" else None, "training": training}
    file = {"file_name": "mine.h5", "file_sha256": "0123abcd"}
    return {
        **{"kind": spec.kind, "layer": spec.layer},
        **{"index_dtype": spec.index_dtype, "pooling": spec.engine},
        "archive": {"bytes": ARCHIVE.size, "sha256": ARCHIVE.sha256},
        "weights": weights | (file if source == "file" else dict.fromkeys(file)),
        "flags": flags,
    }


def render(spec=FLAGSHIP, source="random", training=None, publication=None, **flags):
    return card.render(stated(spec, source, training, **flags), publication or Publication())


CASES = [
    *[("encoder", source, None) for source in ("imagenet", "random", "file")],
    *[("decoder", "random", None), ("decoder", "file", None), ("decoder", "file", record())],
]


@pytest.mark.parametrize("layer", ["block1_conv2", "block2_conv2", "block5_conv2"])
def test_every_card_keeps_the_rules_and_reads_well(layer):
    for kind, source, training in CASES:
        for engine in ("argmax", "xla"):
            spec = Spec(kind, layer, "int32", engine)
            made = stated(spec, source, training)
            get = {"encoder": 'get("e")', "decoder": 'get("d")'}
            several = dict.fromkeys(("keras", "saved_model", "onnx", "litert"), get)
            forms = [("hub", {"saved_model": get}), ("huggingface", several)]
            forms += [("kaggle", {form: get}) for form in ("keras", "saved_model", "litert")]
            texts = [card.render(made, Publication(), *form) for form in forms]
            texts.append(card.render(made, Publication()))
            card.check(texts[-1], spec, ARCHIVE, made)
            card.check(texts[-1], spec, ARCHIVE)
            for text in texts:
                assert "\n\n\n" not in text and not re.search("[ \t]$", text, re.MULTILINE)
                assert re.search(r"[^\n]\n\Z", text) and "{{" not in text and "{%" not in text
                assert not re.search(r"[^\n]\n(##|```python)", text.partition("\n")[2])


def test_the_head_of_the_flagships_card():
    text = render(publication=Publication(asset_url="https://example.com/models/"))
    page = hub_page.read(text)
    assert text.startswith("# Module emilutz/vgg19-block5-conv2-unpooling-encoder/1\n\nUntrained ")
    place = "https://example.com/models/vgg19-block5-conv2/encoder.tar.gz"
    names = "asset-path task fine-tunable dataset format network-architecture license"
    values = f"{place} image-feature-vector true other saved_model_2 vgg-style mit"
    assert page.metadata == dict(zip(names.split(), values.split(), strict=True))


def first_paragraph(text):
    return text.split("### Module description\n\n")[1].split("\n\n")[0]


def test_a_card_says_where_the_weights_come_from():
    assert "untrained" in first_paragraph(render())
    assert "seed 7" in render()
    assert "ImageNet" in first_paragraph(render(source="imagenet"))
    assert "<!-- dataset: imagenet-ilsvrc-2012-cls -->" in render(source="imagenet")
    file = render(source="file")
    assert "ImageNet" not in first_paragraph(file) and "untrained" not in file.lower()
    assert "<!-- dataset: other -->" in file and "`mine.h5`" in file and "0123abcd" in file
    told = render(source="file", publication=Publication(dataset="coco-2017"))
    assert "<!-- dataset: coco-2017 -->" in told
    assert "The publisher states that they were trained on `coco-2017`." in told


def test_the_card_of_a_decoder_that_ships_says_what_it_was_trained_on():
    spec = Spec("decoder", "block2_conv2")
    facts = stated(spec, "file", record())
    assert "What they were trained on is not stated." in card.render(facts, Publication())
    facts["weights"]["file_sha256"] = load_decoder("pretrained", spec.layer).file_sha256
    text = card.render(facts, Publication())
    assert "photographs of BSDS500" in text and "not stated" not in text
    assert "a file that comes with the package" in first_paragraph(text)


# By source, dataset, record and the publisher's word: the license.
LICENSES = [
    ("encoder", "random", "other", None, None, "mit"),
    ("encoder", "imagenet", "other", None, None, "cc-by-4.0"),
    ("encoder", "imagenet", "other", None, "mit", "cc-by-4.0"),
    ("encoder", "file", "other", None, None, "cc-by-4.0"),
    ("encoder", "file", "imagenet", None, None, "cc-by-4.0"),
    ("encoder", "file", "coco-2017", None, None, "mit"),
    ("encoder", "file", "coco-2017", None, "cc-by-nc-4.0", "cc-by-nc-4.0"),
    ("decoder", "random", "other", None, None, "mit"),
    ("decoder", "file", "coco-2017", record("imagenet"), None, "cc-by-4.0"),
    ("decoder", "file", "coco-2017", record("imagenet"), "cc-by-4.0", "cc-by-4.0"),
    ("decoder", "file", "coco-2017", record("file"), None, "cc-by-4.0"),
    ("decoder", "file", "coco-2017", record("file"), "apache-2.0", "apache-2.0"),
    ("decoder", "file", "imagenet", record("random"), None, "mit"),
    ("decoder", "file", "other", None, None, "mit"),
]


@pytest.mark.parametrize("kind, source, dataset, training, word, name", LICENSES)
def test_the_license_follows_from_the_weights(kind, source, dataset, training, word, name):
    spec = Spec(kind, "block2_conv2")
    made = stated(spec, source, training, **({"license": word} if word else {}))
    license = licenses.of(made, dataset)
    assert license.name == name
    for host in card.HOSTS:
        halves = {"encoder": "e()", "decoder": "d()"}
        downloads = None if host == "hub" else {"keras": halves, "saved_model": halves}
        text = card.render(made, Publication(dataset=dataset), host, downloads)
        attributed = all(w in text for w in ("K. Simonyan and A. Zisserman", "Changes: ", "CC BY"))
        assert attributed == (name == "cc-by-4.0")
        if host == "hub":
            assert f"<!-- license: {license.hub} -->" in text
            card.check(text, spec, ARCHIVE, made)
            other = "custom" if license.hub == "mit" else "mit"
            text = text.replace(f"license: {license.hub}", f"license: {other}")
            with pytest.raises(UserError, match=f"`license` must be {license.hub}"):
                card.check(text, spec, ARCHIVE, made)


def test_a_publisher_cannot_state_another_license_for_what_began_from_imagenets_weights():
    with pytest.raises(UserError, match=r"--license=mit is not possible: .* cc-by-4\.0"):
        render(Spec("decoder", "block2_conv2"), "file", record(), license="mit")


def test_a_card_says_that_only_xla_needs_the_other_engine():
    assert "max_pool_with_argmax`, which runs on CPU and GPU, but which XLA cannot" in render()
    xla = render(Spec("encoder", "block5_conv2", "int64", "xla"))
    assert "works inside `tf.function(jit_compile=True)`" in xla
    assert "cannot compile" not in xla and "GPU" not in xla
    with pytest.raises(UserError, match="missing: The maxima are found by `tf"):
        card.check(xla, FLAGSHIP, ARCHIVE)


def test_a_decoders_card_shows_its_training_and_nothing_that_a_stranger_smuggled_in():
    evaluation = {"photographs": 1, "error": 2.0625, "psnr": 30.125, "ssim": 0.9}
    training = record(evaluation=evaluation, flags={"a|b": "`<x>`\n# Heading", "none": None})
    text = render(Spec("decoder", "block2_conv2"), "file", training)
    assert "its mean absolute error is 2.062 of 255 on 1 photograph held out" in text
    assert "its PSNR 30.12 dB, its SSIM 0.9000." in text
    assert "| flags a_b | `__x__ _ Heading` |" in text and "flags none" not in text
    assert "photographs held out" in render(
        Spec("decoder", "block2_conv2"), "file", record(evaluation={"photographs": 2, "error": 1.0})
    )


BREACHES = [
    ("# Module emilutz/vgg19-block5", "# Module emilutz/vgg19-block4", "name must be vgg19-b"),
    ("encoder/1\n", "encoder/0\n", "`model_version` must be at least 1"),
    ("license: mit", "license: custom", "missing: K. Simonyan"),
    ("dataset: other", "dataset: mine", "`dataset` must be a dataset tag of the hub"),
    ("format: saved_model_2", "format: hub", "`format` must be saved_model_2"),
    ("encoder.tar.gz -->", "other.tar.gz -->", "`asset-path` must end in /vgg19-block5-conv2/"),
    ("asset-path: https", "asset-path: gs", "`asset_url` must be an http or https URL"),
    ("## Overview", "## Summary", "missing: ## Overview"),
    ("`(B * H * W * 16, 4)` |", "`(B * H * W * 61, 4)` |", "is missing: | `block1_indices`"),
    ("| int64 |", "| int32 |", "is missing: | `block1_indices`"),
    ("28 trainable", "82 trainable", "is missing: 28 trainable variables with 15,304,768"),
    ("`12ab`", "`12ac`", "is missing: `encoder.tar.gz`: 21 bytes"),
]


@pytest.mark.parametrize(("old", "new", "words"), BREACHES)
def test_a_card_that_breaks_a_rule_or_describes_another_archive_is_refused(old, new, words):
    text = render()
    assert old in text
    with pytest.raises(UserError, match=re.escape(words)):
        card.check(text.replace(old, new, 1), FLAGSHIP, ARCHIVE)


def test_a_card_of_other_weights_is_refused():
    text = render(source="file", publication=Publication(dataset="coco-2017"))
    with pytest.raises(UserError, match=r"missing: .*untrained"):
        card.check(text, FLAGSHIP, ARCHIVE, stated())


@pytest.mark.parametrize("layer", ["block2_conv2", "block1_conv2"])
def test_the_usage_code_runs_as_printed(build, build_decoder, serve, tmp_path, monkeypatch, layer):
    # Sides that are not multiples of anything, as a photograph has them.
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    kinds = {"encoder": build, "decoder": build_decoder}
    urls = {kind: serve(folder(layer)) for kind, folder in kinds.items()}
    for kind, folder in kinds.items():
        made = manifest.read(str(folder(layer) / f"{kind}.manifest.json"))
        spec = manifest.spec_of(made)
        text = (folder(layer) / f"{kind}.md").read_text(encoding="utf-8")
        card.check(text, spec, archives.read(str(folder(layer) / f"{kind}.tar.gz")), made)
        program = "\n".join(card.code_blocks(text))
        for half, url in urls.items():
            program = re.sub(rf'"https://.*/{half}\.tar\.gz"', f'"{url}/{half}.tar.gz"', program)
        assert "https://" not in program
        names = {}
        exec(program, names)
        scale = spec.downsampling
        assert names["features"].shape[1:3] == (53 // scale, 70 // scale)
        assert len(names["gradients"]) == 2 and all(g is not None for g in names["gradients"])
        if kind == "decoder":
            assert names["decoded"].shape == names["images"].shape
        elif spec.pooled:
            unpooled = names["unpooled"].numpy()
            assert list(unpooled.shape) == names["shape"]
            assert np.count_nonzero(unpooled) <= unpooled.size // 4


def test_keras_3_takes_a_module_under_mixed_precision_as_the_card_says(saved_model, images):
    # test_docs.py does so by Keras 2.
    assert 'pass `dtype="float32"` to either layer' in render()
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        folder = saved_model("block2_conv2")
        layer = keras.layers.TFSMLayer(folder, call_endpoint="compact", dtype="float32")
        features, switches = layer(images)
    finally:
        keras.mixed_precision.set_global_policy(before)
    np.testing.assert_array_equal(features, hub.load(folder)(images)[0])
    assert switches.dtype == "uint8"
