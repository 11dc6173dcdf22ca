"""Converted modules equal their archives, and only such files are put in place."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import unpooling
from export import artifact, build, card, formats
from export.formats import check, source
from export.formats.onnx import OPSET
from export.licenses import NAMES
from export.spec import Spec
from tests.conftest import ROOT
from unpooling import pooling, vgg19
from unpooling.encoder import Encoder
from unpooling.errors import UserError

LAYER = "block2_conv2"
PAGE = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
KINDS = ("encoder", "decoder")


@pytest.fixture(scope="module")
def sources(build, build_decoder):
    """{kind: its module, read}."""
    folders = {"encoder": build(LAYER), "decoder": build_decoder(LAYER)}
    read = {kind: source.read(str(folders[kind] / f"{kind}.tar.gz")) for kind in KINDS}
    return {kind: dataclasses.replace(module, license="mit") for kind, module in read.items()}


@pytest.fixture(scope="module")
def files(sources, tmp_path_factory):
    """The folder with a file of each format and kind, and the folders of the Keras models."""
    folder = tmp_path_factory.mktemp("files")
    for kind, module in sources.items():
        for name, ending in formats.FORMATS.items():
            path = str(folder / f"{kind}{ending}")
            formats.module_of(name).write(module, path)
    return folder


@pytest.fixture
def unchecked(monkeypatch):
    """Leaves the check in a fresh process out."""
    monkeypatch.setattr(formats, "_check_in_fresh_process", lambda *arguments: None)


def test_a_decoder_of_an_earlier_version_loads_but_is_no_longer_made_anything_of(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as earlier:
        # It had no convolutions of its own after an unpooling.
        earlier.setattr(vgg19, "_more", lambda block, count: ())
        folder = build.build_decoder(
            Spec("decoder", LAYER), "random", output_dir=str(tmp_path), verify=False
        )
    path = f"{folder}/decoder.tar.gz"
    encoded = Encoder.load(LAYER, "random").compact(np.full((1, 8, 8, 3), 99, np.float32))
    assert unpooling.load(path)(encoded).shape == (1, 8, 8, 3)
    for refuses, told in ((source.read, path), (artifact.read, folder)):
        absent = "decoder_block1_conv4, decoder_block1_conv3"
        with pytest.raises(UserError, match=rf"has no {absent}, so .* [Bb]uild it anew"):
            refuses(told)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_runtime_gives_what_the_archive_gives(name, kind, files, sources):
    path = str(files / f"{kind}{formats.FORMATS[name]}")
    lines = list(check.check(sources[kind], name, path))
    assert len(lines) == (2 if name == "onnx" else 1)
    assert all("within" in line for line in lines)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_same_module_gives_the_same_bytes(name, files, sources, tmp_path):
    path = tmp_path / f"decoder{formats.FORMATS[name]}"
    formats.module_of(name).write(sources["decoder"], str(path))
    assert path.read_bytes() == (files / path.name).read_bytes()


@pytest.mark.parametrize("name", formats.FORMATS)
def test_other_weights_are_found_out(name, sources, tmp_path):
    layers = dict(sources["decoder"].layers)
    kernel, bias = layers["decoder_block1_conv1"]
    layers["decoder_block1_conv1"] = kernel, bias + np.float32(0.1)
    path = str(tmp_path / f"decoder{formats.FORMATS[name]}")
    other = dataclasses.replace(sources["decoder"], layers=layers)
    formats.module_of(name).write(other, path)
    with pytest.raises(UserError, match="archive"):
        list(check.check(sources["decoder"], name, path))


def _swap(outputs):
    outputs["block1_switches"] = outputs["block1_switches"] ^ 1


WRONG = {
    "NaN": (lambda o: o["features"].fill(np.nan), "features differ .* by nan"),
    "switches": (_swap, "block1_switches differ .*, not in near-ties"),
    "dtype": (lambda o: o.update(features=np.float64(o["features"])), "dtype of features is float"),
    "shape": (lambda o: o.update(features=o["features"][:, 1:]), "the shape of features is"),
    "names": (lambda o: o.update(more=o["features"]), "the outputs are"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_check_says_what_is_wrong(case, sources, monkeypatch):
    change, message = WRONG[case]
    module = sources["encoder"]

    def run(inputs):
        outputs = dict(zip(module.outputs, module.module.compact(inputs["images"]), strict=True))
        outputs = {name: np.array(output) for name, output in outputs.items()}
        change(outputs)
        return outputs

    stub = type("module", (), {"runtimes": staticmethod(lambda *arguments: [("it", run)])})
    monkeypatch.setattr(formats, "module_of", lambda name: stub)
    with pytest.raises(UserError, match=message):
        list(check.check(module, "onnx", "file"))


def test_an_onnx_file_says_what_it_is(files, sources):
    model = onnx.load(files / "encoder.onnx")
    assert [opset.version for opset in model.opset_import] == [OPSET]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["layer"] == LAYER and properties["license"] == "mit"
    assert properties["archive_sha256"] == sources["encoder"].sha256
    assert list(json.loads(properties["weights_sha256"])) == list(sources["encoder"].layers)
    free = [[d.dim_param for d in i.type.tensor_type.shape.dim][:3] for i in model.graph.input]
    assert free == [["batch", "height", "width"]]
    assert f"opset {OPSET}" in PAGE


def test_litert_needs_no_flex_and_half_the_bytes_with_float16(files, sources, tmp_path):
    for kind, module in sources.items():
        small = tmp_path / f"{kind}.tflite"
        formats.module_of("litert").write(module, str(small), float16=True)
        whole = files / f"{kind}.tflite"
        assert small.stat().st_size < 0.55 * whole.stat().st_size
        assert list(check.check(module, "litert", str(small), float16=True))
        with pytest.raises(UserError, match="more than 1e-05"):
            list(check.check(module, "litert", str(small)))
        for path in (small, whole):
            operations = {o["op_name"] for o in Interpreter(str(path))._get_ops_details()}
            assert "CONV_2D" in operations and not any("Flex" in name for name in operations)


def test_the_page_reads_the_archives_weights_and_states_the_tolerances(files, sources):
    (code,) = (code for code in card.code_blocks(PAGE) if "def read" in code)
    exec(code.rpartition("\n\n")[0], names := {"np": np})
    found, metadata = names["read"](files / "encoder.safetensors")
    expected = {
        f"{name}/{part}": array
        for name, pair in sources["encoder"].layers.items()
        for part, array in zip(("kernel", "bias"), pair, strict=True)
    }
    assert list(found) == list(expected) and "kernel (3, 3, in, out)" in metadata["layout"]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    for tolerance in (check.TOLERANCE, check.FLOAT16_TOLERANCE):
        assert f"{tolerance:.0e}".replace("e-0", "e-") in PAGE


def test_the_code_on_the_page_runs(files, sources, tmp_path, monkeypatch):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (53, 70, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names, decoded = {}, []
    for code in card.code_blocks(PAGE):
        exec(compile(code, "runtimes.md", "exec"), names)
        if "decoded" in code and "Model" not in code:
            decoded.append(np.asarray(names["decoded"]))
    encoded = sources["encoder"].module.compact(names["images"])
    expected = sources["decoder"].module(encoded).numpy()
    assert len(decoded) == 3
    for pictures in decoded:
        np.testing.assert_allclose(pictures, expected, rtol=0, atol=1e-5 * expected.max())
    switches = encoded[1].numpy()
    indices = pooling.switches_to_indices(switches)
    np.testing.assert_array_equal(names["to_indices"](switches), indices)
    assert names["unpooled"].shape == (None, None, None, 8)
    assert pathlib.Path("features.onnx").is_file()


def test_a_keras_folder_holds_what_the_hub_wants(build, tmp_path, unchecked):
    archive = str(build("block1_conv2") / "encoder.tar.gz")
    folder = tmp_path / "model"
    formats.convert(archive, "keras", str(folder))
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metadata.json",
        "model.weights.h5",
    }
    assert keras.saving.load_model(folder).output.shape == (None, None, None, 64)
    with pytest.raises(UserError, match=r"pass --overwrite .* another --output\."):
        formats.convert(archive, "keras", str(folder))


def test_what_cannot_be_converted_is_refused_and_nothing_is_left(build, tmp_path, monkeypatch):
    archive = str(build("block1_conv2") / "encoder.tar.gz")
    alone = str(shutil.copy(archive, tmp_path))
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    before = sorted(tmp_path.iterdir())
    output = str(tmp_path / "encoder.safetensors")

    def refused(message, *arguments, **options):
        with pytest.raises(UserError, match=message):
            formats.convert(*arguments, **options)
        assert sorted(tmp_path.iterdir()) == before and taken.read_text() == "mine"

    refused("already exists: pass --overwrite", archive, "safetensors", str(taken))
    refused("--output must end in .onnx", archive, "onnx", output)
    refused("--float16 goes with --format=litert", archive, "safetensors", output, float16=True)
    refused("pass --license, one of mit", alone, "safetensors", output)
    refused("encoder.manifest.json states it", archive, "safetensors", output, license=NAMES[0])
    refused("cannot be made", archive, "safetensors", f"{tmp_path}/none/encoder.safetensors")

    class Failed:
        returncode, stdout = 1, ["ok      something\n", "FAILED  it differs\n"]
        __enter__ = __exit__ = lambda self, *arguments: self

    monkeypatch.setattr(formats.subprocess, "Popen", lambda *arguments, **options: Failed())
    refused("it differs", archive, "safetensors", str(taken), overwrite=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "safetensors" else find(name)
    )
    refused(r'needs safetensors: pip install "\.\[safe', archive, "safetensors", output)


@pytest.mark.slow
def test_the_command_converts_checks_and_overwrites_only_when_told(build, run_command, tmp_path):
    output = tmp_path / "encoder.onnx"
    archive = shutil.copy(build("block1_conv2") / "encoder.tar.gz", tmp_path)
    flags = [f"--archive={archive}", "--format=onnx", f"--output={output}"]
    result = run_command("convert.py", *flags, "--license=mit", KERAS_BACKEND="jax")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n  ok ") == 2 and result.stdout.endswith(f"done: {output}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.onnx", "encoder.tar.gz"}
    result = run_command("convert.py", *flags, "--license=mit")
    (line,) = result.stderr.splitlines()
    assert line == f"convert: {output} already exists: pass --overwrite to replace it."
