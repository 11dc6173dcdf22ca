"""The benchmark's parts run; what they measure is not for a test to judge."""

import functools
import shutil

import pytest
from PIL import Image

from benchmarks import bench, names, processes, runtimes, times, training
from tests.conftest import ROOT
from training import config
from unpooling import pooling

LAYER = "block2_conv2"


@pytest.fixture(scope="module", autouse=True)
def flags():
    bench.FLAGS(["bench", "--growth=32,64"])
    yield
    bench.FLAGS.unparse_flags()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return times.save_models(LAYER, str(tmp_path_factory.mktemp("models")))


@pytest.fixture
def growth():
    """What `measure_growth` returns: (peak, bytes of the outputs, seconds) by kind and side."""
    return {name: [(2 << 20, 1 << 20, 0.5), (8 << 20, 4 << 20, 2.0)] for name in bench.KINDS}


@pytest.mark.parametrize(
    "measure",
    [
        times.time_encoder_under_xla,
        functools.partial(times.time_decoder, LAYER),
        functools.partial(times.time_pair, LAYER),
    ],
)
def test_modules_are_timed_in_turn_and_tabulated(models, measure):
    medians = measure(models, 32, 1)
    assert all(seconds > 0 for seconds in medians.values())
    table = bench.times_table(medians, "on a test").splitlines()
    assert table[0].startswith("| on a test ") and table[2].endswith(" 1.00 |")
    assert len(table) == 2 + len(medians)


def test_the_summary_compares_with_the_first_row(models, growth):
    one, batch = times.time_encoder(models, 32, 1, 1), times.time_encoder(models, 16, 8, 1)
    pooling, decoder = times.time_pooling(32, 1), times.time_decoder(LAYER, models, 32, 1)
    assert all(seconds > 0 for seconds in times.time_unpooling(32, 1).values())
    table = bench.summary_table(one, batch, pooling, decoder, growth)
    ratio = one[names.INT64] / one[names.PLAIN]
    assert f"| {ratio:.2f} | 1.10 |" in table


def test_memory_is_that_of_a_process_of_its_own(models):
    folder = models["int64"]
    peak, size, seconds = processes.in_fresh_process(
        processes.measure_call, folder, "features", 512, 1
    )
    assert size == 256 * 256 * 128 * 4
    assert peak > size and seconds > 0


def test_the_page_keeps_its_prose_and_the_other_part(growth, tmp_path):
    shutil.copy(ROOT / "docs" / "performance.md", tmp_path)
    bench.FLAGS.output_dir = str(tmp_path)
    old = (tmp_path / "performance.md").read_text(encoding="utf-8")
    for part in ("modules", "training"):
        bench.write(part, "Measured here", [("Title", bench.growth_table(growth))])
        new = (tmp_path / "performance.md").read_text(encoding="utf-8")
        begin, end = f"<!-- {part} begins -->", f"<!-- {part} ends -->"
        assert new.partition(begin)[0] == old.partition(begin)[0]
        assert new.partition(end)[2] == old.partition(end)[2]
        written = new.partition(begin)[2].partition(end)[0]
        assert written.startswith("\n\nMeasured here.\n\n### Title\n\n|")
        assert "s | 488.28 | 488.28 |" in written
        old = new
    bench.plot(growth, tmp_path / "performance.png")
    with Image.open(tmp_path / "performance.png") as picture:
        assert min(picture.size) >= 400


def test_training_steps_are_timed_part_by_part(tmp_path, monkeypatch):
    case = LAYER, "bfloat16"
    monkeypatch.setattr(training, "SIDES", {"small": (48, 32), "large": (64, 48)})
    recipe = functools.partial(config.recipe, crop=32, batch_size=2)
    monkeypatch.setattr(training.config, "recipe", recipe)
    unpool = pooling.unpool
    steps = training.time_steps(*case, 1)
    assert list(steps) == [training.PLAIN_STEP, training.STEP] and pooling.unpool is unpool
    folders = training.write_photographs(str(tmp_path), number=2)
    parts = training.time_parts(*case, 1, folders["small"])
    *others, whole = parts.values()
    assert sum(others) == pytest.approx(whole)
    batches = {(LAYER, size): training.time_batches(LAYER, f) for size, f in folders.items()}

    monkeypatch.setattr(training, "LAYERS", [LAYER])
    monkeypatch.setattr(training, "PRECISIONS", ["bfloat16"])
    ratio = steps[training.STEP] / steps[training.PLAIN_STEP]
    assert bench.steps_table({case: steps}).endswith(f" | {ratio:.2f} | 1.10 |")
    assert bench.parts_table({case: parts}).endswith(f"| the whole step | {whole * 1e3:.1f} |")
    table = bench.batches_table({case: steps}, batches).splitlines()
    assert table[2].startswith("| batches of photographs, 48x32 | ") and len(table) == 5
    assert table[4] == f"| steps, bfloat16 | {1 / steps[training.STEP]:.1f} |"


@pytest.mark.slow
def test_runtimes_are_timed_side_by_side_and_must_agree(tmp_path, monkeypatch):
    kept = (runtimes.TENSORFLOW, "Keras on JAX", "OpenVINO")
    monkeypatch.setattr(runtimes, "RUNTIMES", kept)
    runtimes.write_modules(LAYER, tmp_path)
    seconds = runtimes.time_runtimes(tmp_path, 32, 1)
    assert list(seconds) == list(kept) and all(min(each.values()) > 0 for each in seconds.values())
    table = bench.runtimes_table({LAYER: seconds}).splitlines()
    assert f"{LAYER} encoder | {LAYER} pair |" in table[0] and len(table) == 2 + len(kept)
    assert table[2].count("(1.00)") == 2

    other = tmp_path / "other"
    other.mkdir()
    runtimes.write_modules("block1_conv2", other)
    monkeypatch.setattr(runtimes, "RUNTIMES", (runtimes.TENSORFLOW, "OpenVINO"))
    (other / "encoder.onnx").replace(tmp_path / "encoder.onnx")
    with pytest.raises(AssertionError, match="OpenVINO: encoder gives"):
        runtimes.time_runtimes(tmp_path, 32, 1)
