"""The same build gives the same bytes, whoever runs it, wherever, and whatever went before."""

import os

import pytest

from export.spec import Spec

LAYER = "block2_conv2"
SPECS = [Spec("encoder", LAYER), Spec("encoder", LAYER, "int32", "xla"), Spec("decoder", LAYER)]

# Stands for another machine: other devices and threads, after other work, 400 days later.
ELSEWHERE = """
import sys, time

clock = time.time
time.time = lambda: clock() + 400 * 86400

import keras
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.set_soft_device_placement(False)
tf.config.optimizer.set_jit(True)
keras.utils.set_random_seed(7)
keras.config.set_dtype_policy("mixed_float16")
keras.applications.VGG19(include_top=False, weights=None)

from export.build import build_decoder, build_encoder
from export.spec import Spec

build_decoder(Spec("decoder", sys.argv[1]), "random", output_dir="made/argmax", verify=False)
for dtype, engine in (("int32", "xla"), ("int64", "argmax")):
    spec = Spec("encoder", sys.argv[1], dtype, engine)
    build_encoder(spec, "random", output_dir=f"made/{engine}", verify=False)
"""

KERAS_JSON = '{"floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}'


@pytest.fixture(scope="module")
def elsewhere(run_command, tmp_path_factory):
    """The folder in which another process has built all of `SPECS`."""
    place = tmp_path_factory.mktemp("an other plåce")
    (place / "keras.json").write_text(KERAS_JSON)
    (place / "temporary").mkdir()
    umask = os.umask(0o077)
    other = {"HOME": str(place), "KERAS_HOME": str(place), "TMPDIR": str(place / "temporary")}
    other |= {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati", "USER": "somebody"}
    other |= {"PYTHONHASHSEED": "4321", "OMP_NUM_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    try:
        result = run_command("-c", ELSEWHERE, LAYER, cwd=place, **other)
    finally:
        os.umask(umask)
    assert result.returncode == 0, result.stderr
    assert os.listdir(place / "temporary") == []
    return place / "made"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind} {spec.engine}")
def test_another_process_makes_the_same_five_files(build, build_decoder, elsewhere, spec):
    if spec.kind == "encoder":
        here = build(spec.layer, spec.index_dtype, spec.engine)
    else:
        here = build_decoder(spec.layer)
    there = elsewhere / (spec.engine or "argmax") / spec.folder_name
    assert sorted(os.listdir(there)) == sorted(spec.files)
    for name in sorted(spec.files, reverse=True):  # The manifest first, which tells more.
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
