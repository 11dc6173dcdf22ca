"""A hub of one's own: TensorFlow Hub's protocol, and pages for people."""

import concurrent.futures
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow_hub as hub
from PIL import Image

from export import checksums, spec
from publish import markdown, serve, tree
from tests.conftest import ROOT

NAME = "vgg19-block1-conv2-unpooling-encoder"
MODEL = f"emilutz/{NAME}"
FILES = "vgg19-with-unpooling/vgg19-block1-conv2"
COMPRESSED = "?tf-hub-format=compressed"


def start(root, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "publish.serve", f"--root={root}", "--port=0", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def root(build, tmp_path_factory):
    """A tree with two versions of one model."""
    root = tmp_path_factory.mktemp("serve") / "hub"
    folder = tmp_path_factory.mktemp("artifacts")
    shutil.copytree(build("block1_conv2"), folder / "one")
    tree.add(tree.artifact_folders(str(folder)), str(root), overwrite=False)
    card = folder / "one" / "encoder.md"
    text = card.read_text(encoding="utf-8").replace("encoder/1\n", "encoder/12\n", 1)
    card.write_text(text.replace("vgg19-with-unpooling/", "two/"), encoding="utf-8")
    checksums.write(str(folder / "one"), spec.files("encoder")[:-1])
    tree.add(tree.artifact_folders(str(folder)), str(root), overwrite=False)
    return root


@pytest.fixture(scope="module")
def server(root):
    """The real command on a free port: (process, URL)."""
    process = start(root)
    line = process.stdout.readline()
    assert line.startswith("serving 2 models at http://127.0.0.1:"), process.stderr.read()
    yield process, line.split()[-1].rstrip("/")
    process.terminate()
    process.communicate(timeout=30)


@pytest.fixture
def get(server):
    """Asks the server; returns (status, headers, body). Redirects are not followed."""
    host = server[1].removeprefix("http://")

    def get(path, method="GET", **headers):
        connection = http.client.HTTPConnection(host, timeout=30)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=names)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, body

    return get


# TensorFlow Hub's protocol.


def test_the_real_client_loads_by_url_and_again_without_a_network(
    root, server, images, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    other = start(root)
    url = f"{other.stdout.readline().split()[-1]}{MODEL}/1"
    expected = hub.KerasLayer(url)(images)
    assert expected.shape == (2, 32, 48, 64)
    other.terminate()
    other.communicate(timeout=30)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)
    np.testing.assert_array_equal(hub.KerasLayer(url)(images), expected)


@pytest.mark.parametrize("path", [f"/{MODEL}/1", f"/{MODEL}/1/", f"/{MODEL}/12", f"/{MODEL}"])
def test_the_compressed_format_is_the_archive(get, build, path):
    status, headers, body = get(path + COMPRESSED)
    assert status == 200
    assert headers["content-type"] == "application/gzip"
    assert body == (build("block1_conv2") / "encoder.tar.gz").read_bytes()
    assert headers["etag"] == f'"{hashlib.sha256(body).hexdigest()}"'


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_takes_up_a_download_that_broke_off(server, build, tmp_path):
    archive = (build("block1_conv2") / "encoder.tar.gz").read_bytes()
    path = tmp_path / "encoder.tar.gz"
    path.write_bytes(archive[:12345])
    url = f"{server[1]}/{MODEL}/1{COMPRESSED}"
    options = ["--fail", "--silent", "--show-error", "--continue-at", "-", "--dump-header", "-"]
    result = subprocess.run(
        ["curl", *options, "--output", str(path), url], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "206 Partial Content" in result.stdout
    assert path.read_bytes() == archive
    # And with a condition it fetches nothing that it has.
    tag = f'If-None-Match: "{hashlib.sha256(archive).hexdigest()}"'
    result = subprocess.run(
        ["curl", "--silent", "--head", "--header", tag, url], capture_output=True, text=True
    )
    assert result.stdout.startswith("HTTP/1.1 304 ")


def test_the_uncompressed_format_is_a_location(get):
    status, headers, body = get(f"/{MODEL}/1?tf-hub-format=uncompressed")
    assert status == 303
    assert headers["location"] == body.decode() == f"gs://{FILES}/encoder"
    assert get(f"/{MODEL}?tf-hub-format=uncompressed")[2].startswith(b"gs://two/")


def test_the_real_client_takes_the_uncompressed_location(server, monkeypatch):
    from tensorflow_hub import uncompressed_module_resolver

    resolver = uncompressed_module_resolver.HttpUncompressedFileResolver()
    url = f"{server[1]}/{MODEL}/1?tf-hub-format=uncompressed"
    assert resolver._request_gcs_location(url) == f"gs://{FILES}/encoder"


def test_a_location_outside_google_cloud_is_the_url_without_its_ending():
    url = "https://example.com/models/a/encoder.tar.gz"
    assert serve.uncompressed_location(url) == "https://example.com/models/a/encoder"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/{MODEL}/2{COMPRESSED}", 404, f"There is nothing at /{MODEL}/2. The models are: /"),
        (f"/{COMPRESSED}", 404, f"The models are: /{MODEL}."),
        (f"/{MODEL}/1?tf-hub-format=zip", 400, "must be compressed or uncompressed. Received: zip"),
    ],
)
def test_what_the_protocol_does_not_have_says_what_there_is(get, path, status, words):
    found, headers, body = get(path)
    assert found == status
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert words in body.decode()


# Files.


@pytest.mark.parametrize("name", spec.files("encoder"))
def test_files_lie_under_the_path_of_their_url(get, build, name):
    status, _, body = get(f"/{FILES}/{name}")
    assert status == 200
    if name == "encoder.tar.gz":
        assert body == (build("block1_conv2") / name).read_bytes()


def test_head_has_the_headers_and_no_body(get):
    for path in ("/", f"/{MODEL}/1", f"/{MODEL}/1{COMPRESSED}", f"/{FILES}/encoder.png"):
        status, headers, body = get(path, "HEAD")
        _, expected, content = get(path)
        assert (status, body) == (200, b"")
        assert headers["content-length"] == expected["content-length"] == str(len(content))


def test_a_range_is_a_part_of_the_file(get):
    _, headers, whole = get(f"/{MODEL}/1{COMPRESSED}")
    assert headers["accept-ranges"] == "bytes"
    status, headers, part = get(f"/{MODEL}/1{COMPRESSED}", range="bytes=1000-1999")
    assert (status, part) == (206, whole[1000:2000])
    assert headers["content-range"] == f"bytes 1000-1999/{len(whole)}"
    assert get(f"/{MODEL}/1{COMPRESSED}", range="bytes=-10")[2] == whole[-10:]
    status, headers, _ = get(f"/{MODEL}/1{COMPRESSED}", range=f"bytes={len(whole)}-")
    assert status == 416


def test_what_has_not_changed_is_not_sent_again(get):
    for path in (f"/{MODEL}/1{COMPRESSED}", f"/{FILES}/encoder.png"):
        tag = get(path)[1]["etag"]
        for wanted in (tag, f"W/{tag}", f'"other", {tag}'):
            status, headers, body = get(path, if_none_match=wanted)
            assert (status, body, headers["etag"]) == (304, b"", tag)
        assert get(path, if_none_match='"other"')[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../../../../../etc/passwd",
        "/static/../serve.py",
        "/static/..%2fserve.py",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/assets/docs/emilutz/emilutz.md",
        "/index.html",
        f"/{FILES}",
        f"/{FILES}/",
        f"/{FILES}/notes.txt",
        f"/{FILES}/../secret.txt",
        f"/{MODEL}/1/encoder.tar.gz",
        "/%00",
        "/static",
    ],
)
def test_nothing_else_is_served(root, get, path):
    (root / "index.html").write_text("secret")
    (root / FILES / "notes.txt").write_text("secret")
    (root / "vgg19-with-unpooling" / "secret.txt").write_text("secret")
    status, _, body = get(path)
    assert status in (404, 405)
    for secret in (b"secret\n", b"root:", b"import ", b"# Publisher"):
        assert secret not in body


def test_only_reading_is_allowed(get):
    for method in ("POST", "PUT", "DELETE"):
        assert get(f"/{MODEL}/1", method)[0] == 405


# Pages.


def test_a_models_page_shows_what_one_needs(get, server, build):
    status, headers, body = get(f"/{MODEL}/1")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    archive = build("block1_conv2") / "encoder.tar.gz"
    assert f'hub.KerasLayer("{server[1]}/{MODEL}/1")' in page
    assert f"{archive.stat().st_size:,} bytes" in page
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in page
    assert f'<a href="/{MODEL}/12">12</a>' in page  # the other version
    assert 'name="viewport"' in page
    assert '<h2 id="training">Training</h2>' in page  # where the card's own link leads
    (picture,) = re.findall(r'<img src="([^"]+)"', page)
    assert picture == f"/{FILES}/encoder.png"
    assert get(picture)[1]["content-type"] == "image/png"


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(not BROWSER, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_draws_a_models_page(server, tmp_path, width):
    picture = tmp_path / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options = [*flags.split(), "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    options += [f"--user-data-dir={tmp_path}", f"--window-size={width},900"]
    url = f"{server[1]}/{MODEL}/1"
    for wanted in (f"--screenshot={picture}", "--dump-dom"):
        result = subprocess.run(
            [BROWSER, *options, wanted, url], capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
    # The page's own script has run, under the content security policy.
    assert "<button" in result.stdout and ">Copy</button>" in result.stdout
    with Image.open(picture) as drawn:
        assert drawn.width == width
        assert len(drawn.convert("L").getcolors()) > 50


def test_every_link_within_the_hub_leads_somewhere(get):
    seen, queue = set(), ["/"]
    while queue:
        path = queue.pop()
        if path in seen or path.startswith(("http", "#", "mailto")):
            continue
        seen.add(path)
        status, headers, body = get(path)
        assert status == 200, path
        if headers["content-type"].startswith("text/html"):
            queue += re.findall(r'(?:href|src)="([^"]+)"', body.decode())
    assert {"/emilutz", f"/{MODEL}/1", f"/{MODEL}/12", "/static/hub.css"} <= seen
    assert "/emilutz/collection/vgg19-unpooling-encoder-decoder" in seen


def test_the_index_shows_descriptions_as_they_are_meant(get):
    page = get("/")[2].decode()
    assert "VGG19 up to <code>block1_conv2</code>, the first of" in page
    assert f'<a href="/{MODEL}/12">{MODEL}</a>' in page  # the newest alone
    assert f'/{MODEL}/1"' not in page


def test_a_line_of_a_card_can_do_nothing_either():
    html = markdown.render_line(
        "`a` *b* <script>x</script> <img src=x onerror=y> [c](javascript:d)"
    )
    assert html.startswith("<code>a</code> <em>b</em> ")
    assert set(re.findall(r"<[^>]*>", html)) == {"<code>", "</code>", "<em>", "</em>"}


def test_without_a_version_it_is_the_newest(get):
    assert b"<strong>12</strong>" in get(f"/{MODEL}")[2]
    assert b"<strong>1</strong>" in get(f"/{MODEL}/1")[2]


def test_a_decoder_is_served_like_an_encoder(build_decoder, tmp_path):
    folder = build_decoder("block1_conv2")
    shutil.copytree(folder, tmp_path / "one" / folder.name)
    tree.add(tree.artifact_folders(str(tmp_path / "one")), str(tmp_path / "hub"), overwrite=False)
    process = start(tmp_path / "hub")
    url = f"{process.stdout.readline().split()[-1]}emilutz/vgg19-block1-conv2-unpooling-decoder"
    try:
        features = np.zeros((1, 8, 8, 64), np.float32)
        assert hub.KerasLayer(f"{url}/1")(features).shape == (1, 8, 8, 3)
        page = urllib.request.urlopen(url).read().decode()
        assert '/vgg19-with-unpooling/vgg19-block1-conv2-decoder/decoder.tar.gz">' in page
        assert "decoder.png" in page and "encoder.tar.gz</a>" not in page
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_page_that_is_not_there_lists_those_that_are(get):
    status, headers, body = get("/emilutz/nothing/1")
    assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert f'<a href="/{MODEL}">' in body.decode()
    assert b"<script>x" not in get("/%3Cscript%3Ex")[2]


def test_pages_may_run_no_script_but_the_hubs(get):
    policy = get(f"/{MODEL}/1")[1]["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert get("/")[1]["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="javascript:alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "<iframe src=https://example.com></iframe>",
        "<form action=https://example.com><button>x</button></form>",
        "<style>body { display: none }</style>",
        '<svg onload="alert(1)"></svg>',
        '<p style="position:fixed">x</p>',
        "<meta http-equiv=refresh content=0>",
        "<base href=https://example.com>",
        "`<script>`\n\n<!-- --><script>alert(1)</script -->",
        '<img src="data:text/html,x">',
    ],
)
def test_what_a_card_says_can_do_nothing(evil):
    html = markdown.render(f"# Module a/b/1\n\nText.\n\n{evil}\n\nThe end.", {})
    assert "The end." in html
    allowed = r"</?(p|img|a|code|h2|ul|li|pre|strong|em)( (src|href|rel|alt)=\"[^\"]*\")*>"
    assert re.sub(allowed, "", html).count("<") == 0
    assert "javascript:" not in html.replace("[x](javascript:", "") and "data:" not in html


def test_tables_code_and_pictures_come_through():
    html = markdown.render(
        "# x\n| a | b |\n|---|---|\n| `1` | 2 |\n\n```python\nf(1 < 2)\n```\n\n"
        '<img src="https://a.org/b/c.png" height="192">\n',
        {"https://a.org/b": "/here"},
    )
    assert "<td><code>1</code></td>" in html
    assert '<pre><code class="language-python">f(1 &lt; 2)\n</code></pre>' in html
    assert '<img src="/here/c.png" height="192">' in html


# The server as a process.


def test_models_appear_without_a_restart(build, tmp_path):
    folder = tmp_path / "artifacts"
    shutil.copytree(build("block1_conv2"), folder / "one")
    tree.add(tree.artifact_folders(str(folder)), str(tmp_path / "hub"), overwrite=False)
    process = start(tmp_path / "hub")
    url = process.stdout.readline().split()[-1]
    shutil.rmtree(folder / "one")
    shutil.copytree(build("block2_conv2", "int32"), folder / "two")
    tree.add(tree.artifact_folders(str(folder)), str(tmp_path / "hub"), overwrite=False)
    with urllib.request.urlopen(url) as response:
        assert b"vgg19-block2-conv2-unpooling-encoder" in response.read()
    process.terminate()
    process.communicate(timeout=30)


def resident(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from there")
def test_fifty_at_once_get_a_large_archive_in_little_memory(root, tmp_path):
    shutil.copytree(root, tmp_path / "hub")
    size = 57_000_000
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "hub" / FILES / "encoder.tar.gz").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    process = start(tmp_path / "hub")
    url = f"{process.stdout.readline().split()[-1]}{MODEL}/1{COMPRESSED}"
    before = resident(process)

    def download(_):
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=120) as response:
            while part := response.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        found = [pool.submit(download, number) for number in range(50)]
        highest = before
        while not all(each.done() for each in found):
            concurrent.futures.wait(found, timeout=0.2)
            highest = max(highest, resident(process))
    assert {each.result() for each in found} == {expected}
    assert highest - before < size / 2**20  # Not even one copy of it.
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors


def test_it_needs_no_tensorflow(run_command):
    program = "import sys, publish.serve; sys.exit('tensorflow' in sys.modules)"
    assert run_command("-c", program).returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--root=nowhere"], "nowhere is not a hub's tree, it has no assets/docs"),
        (["--port=70000"], "--port=70000"),
        (["--port={taken}"], "pass another --port or --host"),
        (["hub"], "no arguments but flags are taken. Received: hub."),
    ],
)
def test_a_wrong_flag_gets_one_line(run_command, root, server, flags, words):
    taken = server[1].rpartition(":")[2]
    flags = [flag.format(taken=taken) for flag in flags]
    result = run_command("-m", "publish.serve", f"--root={root}", *flags)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("publish.serve: ")]
    assert len(lines) == 1 and words in lines[0], result.stderr
    assert "Traceback" not in result.stderr
