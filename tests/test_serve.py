"""A hub of one's own: TensorFlow Hub's protocol, and pages for people."""

import hashlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_hub as hub
from starlette import testclient

from export import checksums
from export.spec import Spec
from publish import markdown, serve, tree
from tests.conftest import ROOT

MODEL = "emilutz/vgg19-block1-conv2-unpooling-encoder"
FILES = "vgg19-with-unpooling/vgg19-block1-conv2"
COMPRESSED = "?tf-hub-format=compressed"
NAMES = Spec("encoder", "block1_conv2").files


@pytest.fixture(scope="module")
def root(build, build_decoder, tmp_path_factory):
    """A tree with two versions of an encoder, and a decoder."""
    root = tmp_path_factory.mktemp("serve") / "hub"
    folder = tmp_path_factory.mktemp("version 12") / "one"
    tree.add([str(build("block1_conv2")), str(build_decoder("block1_conv2"))], str(root))
    shutil.copytree(build("block1_conv2"), folder)
    card = folder / "encoder.md"
    text = card.read_text(encoding="utf-8").replace("encoder/1\n", "encoder/12\n", 1)
    card.write_text(text.replace("vgg19-with-unpooling/", "two/"), encoding="utf-8")
    checksums.write(str(folder), NAMES[:-1])
    tree.add([str(folder)], str(root))
    return root


@pytest.fixture(scope="module")
def archive(build):
    return (build("block1_conv2") / "encoder.tar.gz").read_bytes()


@pytest.fixture(scope="module")
def client(root):
    return testclient.TestClient(serve.application(str(root)), follow_redirects=False)


@pytest.fixture(scope="module")
def server(root):
    """The real command on a free port."""
    command = [sys.executable, "-m", "publish.serve", f"--root={root}", "--port=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("serving 3 models at http://127.0.0.1:")
    yield line.split()[-1].rstrip("/")
    process.terminate()
    process.communicate(timeout=30)


# TensorFlow Hub's protocol.


def test_the_real_client_loads_by_url(server, saved_model, images):
    expected = hub.load(saved_model("block1_conv2"))(images)
    for path in (f"{MODEL}/1", f"{FILES}/encoder.tar.gz"):
        np.testing.assert_array_equal(hub.KerasLayer(f"{server}/{path}")(images), expected)
    decoder = hub.KerasLayer(f"{server}/{MODEL.replace('encoder', 'decoder')}/1")
    assert decoder(expected).shape == images.shape


def test_the_compressed_format_is_the_archive_the_uncompressed_one_a_location(client, archive):
    # `tensorflow_hub` adds the parameter to the path of a file, too.
    for path in (f"{MODEL}/1", f"{MODEL}/1/", f"{MODEL}/12", MODEL, f"{FILES}/encoder.tar.gz"):
        response = client.get(f"/{path}{COMPRESSED}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/gzip"
        assert response.content == archive
        assert response.headers["etag"] == f'"{hashlib.sha256(archive).hexdigest()}"'
    for path, location in (
        (f"/{MODEL}/1", f"gs://{FILES}/encoder"),
        (f"/{MODEL}", "gs://two/vgg19-block1-conv2/encoder"),
    ):
        response = client.get(f"{path}?tf-hub-format=uncompressed")
        assert response.status_code == 303
        assert response.headers["location"] == response.text == location


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/{MODEL}/2{COMPRESSED}", 404, f"There is nothing at /{MODEL}/2. The models are: /"),
        (f"/{COMPRESSED}", 404, f"/{MODEL}."),
        (f"/{MODEL}/1?tf-hub-format=zip", 400, "must be compressed or uncompressed. Received: zip"),
    ],
)
def test_what_the_protocol_does_not_have_says_what_there_is(client, path, status, words):
    response = client.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert words in response.text


# Files.


HIDDEN = [
    *("/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd"),
    *("/static/../serve.py", "/static/..%2fserve.py", "//etc/passwd", "/%00", "/static"),
    *("/assets/docs/emilutz/emilutz.md", "/index.html", f"/{MODEL}/1/encoder.tar.gz"),
    *(f"/{FILES}", f"/{FILES}/", f"/{FILES}/notes.txt", f"/{FILES}/../secret.txt"),
]


def test_nothing_else_is_served(client, root):
    for place in ("", "vgg19-with-unpooling", FILES):
        for name in ("index.html", "secret.txt", "notes.txt"):
            (root / place / name).write_text("secret\n")
    for path in HIDDEN:
        response = client.get(path)
        assert response.status_code == 404, path
        for secret in ("secret\n", "root:", "import ", "# Publisher"):
            assert secret not in response.text
    assert {client.request(m, "/").status_code for m in ("POST", "PUT", "DELETE")} == {405}


# Pages.


def test_a_models_page_shows_what_one_needs(client, archive):
    response = client.get(f"/{MODEL}/1")
    page = response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f'hub.KerasLayer("http://testserver/{MODEL}/1")' in page
    assert f"{len(archive):,} bytes" in page
    assert hashlib.sha256(archive).hexdigest() in page
    assert "<strong>1</strong>" in page and f'<a href="/{MODEL}/12">12</a>' in page
    assert "<strong>12</strong>" in client.get(f"/{MODEL}").text  # the newest
    assert re.findall(r'<img src="([^"]+)"', page) == [f"/{FILES}/encoder.png"]
    assert client.get(f"/{FILES}/encoder.png").headers["content-type"] == "image/png"


def test_every_link_within_the_hub_leads_somewhere(client):
    seen, queue = set(), ["/"]
    while queue:
        path = queue.pop()
        if path in seen or path.startswith(("http", "#", "mailto")):
            continue
        seen.add(path)
        response = client.get(path)
        assert response.status_code == 200, path
        if response.headers["content-type"].startswith("text/html"):
            queue += re.findall(r'(?:href|src)="([^"]+)"', response.text)
    assert {"/emilutz", f"/{MODEL}/1", f"/{MODEL}/12", "/static/hub.css"} <= seen
    assert "/emilutz/collection/vgg19-unpooling-encoder-decoder" in seen
    assert {f"/{FILES}/{name}" for name in ("encoder.tar.gz", "encoder.png", "SHA256SUMS")} <= seen


EVIL = [
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))"),
    *("<iframe src=https://example.com></iframe>", '<svg onload="alert(1)"></svg>'),
    *("<form action=https://a.org><button>x</button></form>", "<style>body { color: red }</style>"),
    *("`<script>`\n\n<!-- --><script>alert(1)</script -->", '<img src="data:text/html,x">'),
]


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_card_says_can_do_nothing(evil):
    html = markdown.render(f"# Module a/b/1\n\nText.\n\n{evil}\n\nThe end.", {})
    assert "The end." in html
    allowed = r"</?(p|img|a|code|h2|ul|li|pre|strong|em)( (src|href|rel|alt)=\"[^\"]*\")*>"
    assert re.sub(allowed, "", html).count("<") == 0
    assert "javascript:" not in html.replace("[x](javascript:", "") and "data:" not in html
    line = markdown.render_line(f"`a` *b* {evil.splitlines()[0]}")
    assert set(re.findall(r"<[^>]*>", line)) <= {"<code>", "</code>", "<em>", "</em>"}


# The tree while it is served.


def test_new_models_appear_and_a_bad_page_hides_no_other(build, archive, tmp_path, caplog):
    tree.add([str(build("block1_conv2"))], str(tmp_path))
    client = testclient.TestClient(serve.application(str(tmp_path)))
    assert "vgg19-block2" not in client.get("/").text
    tree.add([str(build("block2_conv2", "int32"))], str(tmp_path))
    draft = tmp_path / "assets" / "docs" / "emilutz" / "models" / "draft"
    draft.mkdir()
    (draft / "1.md").write_text("a draft")
    (draft / "2.md").symlink_to("nowhere")
    assert client.get(f"/{MODEL}/1{COMPRESSED}").content == archive
    assert "vgg19-block2-conv2-unpooling-encoder" in client.get("/").text
    assert "draft/1.md is left out: the first line must be" in caplog.text


def test_a_wrong_root_or_port_gets_one_line(run_command, root, server):
    taken = server.rpartition(":")[2]
    for flag, words in (("root=nowhere", "is not a hub's tree"), (f"port={taken}", "pass another")):
        result = run_command("-m", "publish.serve", f"--root={root}", f"--{flag}")
        assert result.returncode == 1
        assert result.stderr.startswith("publish.serve: ") and words in result.stderr
        assert result.stderr.count("\n") == 1
