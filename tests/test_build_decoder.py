"""The command that builds decoders, and what it builds, as a user meets them."""

import json
import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
from PIL import Image

from export import card, checksums, hub_page, spec, verify
from tests.conftest import ROOT
from unpooling import archive, weights

LAYER = "block2_conv2"


@pytest.fixture(scope="module")
def trained():
    """Weights of a decoder that is not the seeded one, and what is known of their training."""
    random = np.random.default_rng(5)
    layers = {
        name: (
            (kernel + random.normal(0, 1e-3, kernel.shape)).astype(np.float32),
            random.normal(0, 1, bias.shape).astype(np.float32),
        )
        for name, (kernel, bias) in weights.load_decoder("random", LAYER, 5).layers.items()
    }
    return layers, {
        "epochs": 3,
        "validation": {"l1": 3.25},
        "by `me`": "a|b\n<b>",
        "evaluation": {"photographs": 1203, "error": 3.14159, "psnr": 30.0, "ssim": 0.95},
    }


@pytest.fixture(scope="module")
def artifact(trained, run_command, tmp_path_factory):
    """The folder of a decoder that was built from a file."""
    folder = tmp_path_factory.mktemp("decoder")
    weights.save(str(folder / "mine.h5"), *trained)
    result = run_command(
        "build_decoder.py",
        f"--layer={LAYER}",
        f"--weights={folder / 'mine.h5'}",
        "--dataset=coco-2017",
        f"--output_dir={folder}",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "vgg19-block2-conv2-decoder"


@pytest.fixture(scope="module")
def saved_decoder(artifact, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_decoder")
    archive.unpack(str(artifact / "decoder.tar.gz"), str(directory))
    return str(directory)


def test_it_makes_five_files_that_pass_every_check(artifact):
    assert sorted(path.name for path in artifact.iterdir()) == sorted(spec.files("decoder"))
    checks = list(verify.verify(str(artifact / "decoder.tar.gz")))
    assert all(check.passed for check in checks), "\n".join(map(str, checks))
    assert [check.name for check in checks if "none beside" in check.detail] == []
    names = [check.name for check in checks]
    assert names.index("signatures") < names.index("weights") < names.index("pictures")


def test_the_manifest_says_what_it_was_made_of(artifact, trained):
    stated = json.loads((artifact / "decoder.manifest.json").read_text())
    layers, training = trained
    assert (stated["kind"], stated["layer"]) == ("decoder", LAYER)
    assert stated["index_dtype"] is None and stated["pooling"] is None
    assert stated["weights"]["layers"] == {
        name: checksums.layer_sha256(*arrays) for name, arrays in layers.items()
    }
    assert stated["weights"]["training"] == training
    assert stated["flags"]["weights"] == "mine.h5"


def test_other_weights_do_not_pass_for_the_manifests(artifact, tmp_path):
    stated = json.loads((artifact / "decoder.manifest.json").read_text())
    stated["weights"]["layers"]["decoder_block1_conv2"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(stated))
    checks = verify.verify(str(artifact / "decoder.tar.gz"), str(tmp_path / "other.json"))
    failed = {check.name: check.detail for check in checks if not check.passed}
    assert failed == {
        "weights": "the weights of decoder_block1_conv2 are not those of the manifest"
    }


def test_a_stranger_decodes_what_an_encoder_returned(saved_decoder, saved_model, trained, images):
    encoder, decoder = hub.KerasLayer(saved_model(LAYER)), hub.KerasLayer(saved_decoder)
    features, indices = encoder(images)
    pictures = decoder([features, indices])
    assert pictures.shape == images.shape
    # The decoder in the fewest words.
    values = features
    for name, (kernel, bias) in trained[0].items():
        if name == "decoder_block1_conv2":
            values = tf.scatter_nd(indices, tf.reshape(values, [-1]), (2, 32, 48, 64))
        values = tf.nn.conv2d(values, kernel, 1, "SAME") + bias
        values = values if name == "decoder_block1_conv1" else tf.nn.relu(values)
    np.testing.assert_allclose(pictures, values, rtol=1e-4, atol=1e-3)
    loaded = hub.load(saved_model(LAYER))
    np.testing.assert_array_equal(decoder(loaded.compact(images)), pictures)
    served = hub.load(saved_decoder).signatures["serving_default"]
    outputs = loaded.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_array_equal(served(**outputs)["images"], pictures)


def test_it_can_be_fine_tuned(saved_decoder, saved_model, images):
    decoder = hub.KerasLayer(saved_decoder, trainable=True)
    assert [v.name for v in decoder.trainable_variables][:2] == [
        "decoder_block2_conv2/kernel:0",
        "decoder_block2_conv2/bias:0",
    ]
    inputs = hub.KerasLayer(saved_model(LAYER))(images)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(abs(decoder(inputs) - images))
    gradients = tape.gradient(loss, decoder.trainable_variables)
    assert len(gradients) == 8
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("signature", ["serving_default", "compact"])
def test_what_does_not_fit_is_refused_by_every_way_of_loading(
    saved_decoder, saved_model, images, signature
):
    encoder, decoder = hub.load(saved_model(LAYER)), hub.load(saved_decoder)
    turned = images.transpose(0, 2, 1, 3)
    name = "block1_indices" if signature == "serving_default" else "block1_switches"
    right, wrong = (encoder.signatures[signature](images=tf.constant(x)) for x in (images, turned))
    mixed = {"features": right["features"], name: wrong[name]}
    calls = (
        lambda: decoder.signatures[signature](**mixed),
        lambda: decoder([mixed["features"], mixed[name]]),
        lambda: hub.KerasLayer(saved_decoder)([mixed["features"], mixed[name]]),
    )
    for call in calls:
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            call()
        assert f"`{name}` do not fit `features`" in str(error.value)
        assert "pad it before it is encoded" in str(error.value)


def test_the_card_keeps_the_hubs_rules(artifact):
    text = (artifact / "decoder.md").read_text(encoding="utf-8")
    page = hub_page.read(text)
    assert (page.kind, page.name) == ("Module", "vgg19-block2-conv2-unpooling-decoder")
    assert page.metadata["dataset"] == ["coco-2017"]
    assert page.metadata["asset-path"][0].endswith("/vgg19-block2-conv2-decoder/decoder.tar.gz")
    # What a file says of itself stays within its cell.
    assert "| epochs | `3` |\n| validation l1 | `3.25` |\n| by _me_ | `a_b _b_` |\n" in text
    assert "| evaluation error | `3.14159` |\n" in text
    assert "its mean absolute error is 3.142 of 255 on 1,203 photographs that were held out" in text
    assert "its PSNR 30.00 dB, its SSIM 0.9500.\n" in text


def test_the_cards_code_runs_as_printed(artifact, build, serve, run_command, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    text = (artifact / "decoder.md").read_text(encoding="utf-8").replace("photo.jpg", "photo.png")
    urls = {
        "encoder": f"{serve(build(LAYER))}/encoder.tar.gz",
        "decoder": f"{serve(artifact)}/decoder.tar.gz",
    }
    program = "\n".join(card.code_blocks(text))
    for name, url in urls.items():
        pattern = rf'{name.upper()}_URL = ".*"'
        assert re.search(pattern, program)
        program = re.sub(pattern, f'{name.upper()}_URL = "{url}"', program)
    program += "\nassert decoded.shape == images.shape == (1, 36, 50, 3)\nassert error > 0\n"
    program += "assert len(gradients) == 2 and all(g is not None for g in gradients)\n"
    (tmp_path / "usage.py").write_text(program)
    result = run_command(
        tmp_path / "usage.py", TFHUB_CACHE_DIR=str(tmp_path / "cache"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr


def test_the_same_command_gives_the_same_files(artifact, run_command, tmp_path):
    result = run_command(
        "build_decoder.py",
        f"--layer={LAYER}",
        f"--weights={artifact.parent / 'mine.h5'}",
        "--dataset=coco-2017",
        f"--output_dir={tmp_path}",
        TF_NUM_INTRAOP_THREADS="1",
        PYTHONHASHSEED="7",
    )
    assert result.returncode == 0, result.stderr
    for name in spec.files("decoder"):
        other = tmp_path / "vgg19-block2-conv2-decoder" / name
        assert other.read_bytes() == (artifact / name).read_bytes(), name


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "--weights"),
        (["--weights=nowhere.h5"], "weights file nowhere.h5: no such file"),
        (["--weights=random", "--layer=block6_conv2"], "block1_conv2|block2_conv2"),
        (["--weights=x.h5", "--seed=3"], "--seed goes with --weights=random only"),
        (["--weights=random", "--dataset=coco-2017"], "--dataset goes with --weights=PATH only"),
        (["--weights=random", "--dataset=mine"], "assets/hub_tags.json lists them"),
        (["--weights=random", "more"], "no arguments but flags are taken"),
    ],
)
def test_wrong_flags_get_one_line_and_leave_nothing(run_command, tmp_path, flags, words):
    result = run_command(
        "build_decoder.py", *flags, f"--output_dir={tmp_path / 'out'}", TF_CPP_MIN_LOG_LEVEL="3"
    )
    assert result.returncode == 1
    lines = [x for x in result.stderr.splitlines() if x.startswith("build_decoder: ")]
    assert len(lines) == 1 and words in lines[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_encoders_file_is_refused(run_command, tmp_path):
    path = tmp_path / "encoder.h5"
    weights.save(str(path), weights.load("random", "block1_conv2").layers)
    result = run_command(
        "build_decoder.py", "--layer=block1_conv2", f"--weights={path}", f"--output_dir={tmp_path}"
    )
    assert result.returncode == 1
    assert "layer decoder_block1_conv2: missing" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.h5"]


def test_make_decoder_has_a_variable_for_every_flag():
    names = "layer weights seed dataset output_dir publisher model_version asset_url".split()
    variables = [f"{name.upper()}=value" for name in names]
    output = subprocess.run(
        ["make", "--dry-run", "--always-make", "decoder", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in output.splitlines() if "build_decoder.py" in line]
    for name in names:
        assert f"--{name}='value'" in line
