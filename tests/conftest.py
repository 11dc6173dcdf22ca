"""Archives that several test files share. Each is built once, for all workers."""

import functools
import http.server
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

# Before Keras and tensorflow_hub are imported: what they download stays out of the user's caches.
_CACHES = tempfile.TemporaryDirectory(prefix="caches-")
os.environ.update(KERAS_HOME=_CACHES.name, TFHUB_CACHE_DIR=_CACHES.name)
os.environ.pop("SOURCE_DATE_EPOCH", None)

import filelock  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from export import build as builds  # noqa: E402
from export.spec import Spec  # noqa: E402
from unpooling import archive  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of this test run, the same for all workers."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def run_command():
    """Runs a Python command of the repository in a fresh process."""

    def run(*arguments, cwd=ROOT, timeout=300, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def _build(shared, build, spec):
    """Builds an untrained artifact unless another worker has, and returns its folder."""
    output_dir = shared / f"built_{spec.index_dtype}_{spec.engine}"
    with filelock.FileLock(shared / f"{output_dir.name}_{spec.folder_name}.lock"):
        folder = output_dir / spec.folder_name
        if not folder.exists():
            build(spec, "random", output_dir=str(output_dir), verify=False)
        return folder


@pytest.fixture(scope="session")
def build(shared):
    """Returns the folder of an untrained encoder's artifact, which no test may change."""

    def folder(layer, index_dtype="int64", engine="argmax"):
        return _build(shared, builds.build_encoder, Spec("encoder", layer, index_dtype, engine))

    return folder


@pytest.fixture(scope="session")
def build_decoder(shared):
    """Returns the folder of an untrained decoder's artifact, which no test may change."""

    def folder(layer):
        return _build(shared, builds.build_decoder, Spec("decoder", layer))

    return folder


@pytest.fixture(scope="session")
def saved_model(build, build_decoder, tmp_path_factory):
    """Returns the folder of an unpacked SavedModel: an encoder's, or a decoder's."""

    @functools.cache
    def unpack(layer, index_dtype="int64", engine="argmax", kind="encoder"):
        encoder = kind == "encoder"
        folder = build(layer, index_dtype, engine) if encoder else build_decoder(layer)
        directory = tmp_path_factory.mktemp("saved_model")
        archive.read(str(folder / f"{kind}.tar.gz")).unpack(str(directory))
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
