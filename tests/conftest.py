"""Archives that several test files share, each built once, by the command itself."""

import functools
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from unpooling import archive

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def _private_hub_cache(tmp_path_factory):
    """Keeps what tensorflow_hub downloads out of the user's cache."""
    os.environ["TFHUB_CACHE_DIR"] = str(tmp_path_factory.mktemp("hub_cache"))


@pytest.fixture(scope="session")
def run_command():
    """Runs a Python command of the repository in a fresh process."""

    def run(*arguments, cwd=ROOT, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def defaults_of(run_command):
    """Returns {name: default} of a command's flags; two commands cannot share a process."""

    def run(module):
        program = (
            f"import json, {module} as m; own = m.FLAGS.get_key_flags_for_module(m);"
            "print(json.dumps({flag.name: flag.default for flag in own}))"
        )
        result = run_command("-c", program)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


# Runs a command in one process, once for each list of flags; with two devices for strategies.
_MANY = """\
import importlib, json, sys
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    processor, [tf.config.LogicalDeviceConfiguration()] * 2
)
from absl import flags
from export import command
name = sys.argv[1].rpartition(".")[2]
module = importlib.import_module(sys.argv[1])
if hasattr(module, "define_flags"):
    module.define_flags()
for arguments in json.loads(sys.argv[2]):
    for flag in module.FLAGS:
        module.FLAGS[flag].unparse()
    try:
        module.FLAGS([name, *arguments])
        status = module.main()
    except flags.Error as error:
        status = command.fail(name, str(error))
    print("status:", status, file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="session")
def run_many(run_command):
    """Runs a command of training many times in one fresh process, for TensorFlow loads slowly.

    Returns the lines on stderr that are the command's own, after those of each run its status,
    and what came on stdout.
    """

    def run(module, runs, **environment):
        result = run_command("-c", _MANY, module, json.dumps(runs), **environment)
        assert result.returncode == 0, result.stderr
        ours = (f"{module.rpartition('.')[2]}: ", "status: ")
        return [x for x in result.stderr.splitlines() if x.startswith(ours)], result.stdout

    return run


@pytest.fixture(scope="session")
def build(run_command, tmp_path_factory):
    """Builds an artifact with build_encoder.py and returns its folder; each one only once."""

    @functools.cache
    def run(layer, index_dtype, pooling):
        output_dir = tmp_path_factory.mktemp(f"{layer}_{index_dtype}_{pooling}")
        return output_dir, run_command(
            "build_encoder.py",
            "--weights=random",
            f"--layer={layer}",
            f"--index_dtype={index_dtype}",
            f"--pooling={pooling}",
            f"--output_dir={output_dir}",
        )

    def build(layer, index_dtype="int64", pooling="argmax"):
        output_dir, result = run(layer, index_dtype, pooling)
        assert result.returncode == 0, result.stdout + result.stderr
        return output_dir / f"vgg19-{layer.replace('_', '-')}"

    return build


@pytest.fixture(scope="session")
def build_decoder(run_command, tmp_path_factory):
    """Builds an untrained decoder with build_decoder.py, returns its folder; each one only once."""

    @functools.cache
    def build_decoder(layer):
        output_dir = tmp_path_factory.mktemp(f"{layer}_decoder")
        arguments = ("--weights=random", f"--layer={layer}", f"--output_dir={output_dir}")
        result = run_command("build_decoder.py", *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return output_dir / f"vgg19-{layer.replace('_', '-')}-decoder"

    return build_decoder


@pytest.fixture(scope="session")
def saved_model(build, tmp_path_factory):
    """Builds an artifact and returns the folder of its unpacked SavedModel; each one only once."""

    @functools.cache
    def unpack(layer, index_dtype="int64", pooling="argmax"):
        directory = tmp_path_factory.mktemp("saved_model")
        path = build(layer, index_dtype, pooling) / "encoder.tar.gz"
        archive.unpack(str(path), str(directory))
        return str(directory)

    return unpack


@pytest.fixture(scope="session")
def serve():
    """Serves a folder by plain HTTP on the loopback interface and returns its URL."""
    servers = []

    def start(directory):
        handler = functools.partial(_QuietHandler, directory=str(directory))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        pass


@pytest.fixture(scope="session")
def images():
    """Two pictures of noise: (2, 32, 48, 3), float32, in [0, 255]."""
    return np.random.default_rng(1).uniform(0, 255, (2, 32, 48, 3)).astype(np.float32)
