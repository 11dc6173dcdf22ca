"""The page of studio.py, in a real browser: upload, run, see the result, download it.

What it shows is also tested without one.
"""

import io
import json
import os
import re
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT
from tests.photographs import picture

pytestmark = pytest.mark.slow

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

RUN = "document.querySelector('#restyle').click()"
SHOWN = "[...document.querySelectorAll('#result img')].map(e => e.currentSrc).filter(Boolean)"
SAID = "document.querySelector('.toast-body')?.innerText"
DONE = f"{SHOWN}.length == 2"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real command, with untrained pairs."""
    temporary = str(tmp_path_factory.mktemp("studio"))
    command = [sys.executable, "studio.py", "--weights=random", "--decoders=random", "--depth=1"]
    with subprocess.Popen(
        [*command, "--most_megapixels=0.01"],
        cwd=ROOT,
        env=os.environ | {"GRADIO_TEMP_DIR": temporary, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Running on" in line:
                    break
            yield re.search(r"http://127.0.0.1:\d+", lines[-1])[0]
        finally:
            process.terminate()


@pytest.fixture
def photographs(tmp_path):
    """Files to upload: contents of two sizes, a style, a mask, one too large, one that is none."""
    sizes = {"content": (40, 56), "other": (64, 48), "style": (48, 36), "large": (120, 100)}
    for number, (name, size) in enumerate(sizes.items()):
        Image.fromarray(picture(number, *size)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "mask.png")
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def browser(server):
    with Browser(1280, 900) as page:
        page.open(server)
        page.wait("document.querySelector('#restyle') != null")
        yield page


def choose(page, folder, **names):
    """Uploads a file to each of the named components."""
    page.run("document.querySelector('#more button').click()")
    for component, name in names.items():
        page.wait(f"document.querySelector('#{component} input[type=file]') != null")
        page.upload(f"#{component} input[type=file]", folder / f"{name}.png")
        page.wait(f"document.querySelector('#{component} img') != null")


def enter(page, component, value):
    """Types a number into the field of a slider."""
    field = f"document.querySelector('#{component} input[type=number]')"
    page.run(
        f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('input', {{bubbles: true}}));"
        f"e.dispatchEvent(new Event('change', {{bubbles: true}})); e.blur(); }})({field})"
    )


@needs_browser
def test_a_photograph_is_restyled_by_strength_and_downloaded(browser, server, photographs):
    choose(browser, photographs, content="content", style="style")
    browser.run(RUN)
    before, after = browser.wait(f"{DONE} && {SHOWN}")
    assert before != after
    enter(browser, "strength", 0)
    browser.run(RUN)
    same, weaker = browser.wait(f"{SHOWN}[1] != '{after}' && {DONE} && {SHOWN}")
    assert same == before and weaker != after  # Their addresses are hashes of what they hold.

    downloads = photographs / "downloads"
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    browser.run("document.querySelector('#download').click()")
    browser.wait_for(lambda: list(downloads.glob("*.png")))
    with Image.open(*downloads.iterdir()) as image:
        assert image.size == (56, 40)

    foreign = [u for u in browser.requests if not u.startswith((server, "data:", "blob:"))]
    assert browser.requests and foreign == []


@needs_browser
@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({}, "Choose a photograph and a style first."),
        ({"content": "text", "style": "style"}, "picture text.png: it cannot be read (cannot"),
        ({"content": "content", "style": "large"}, "large.png has 0.0 megapixels. This page takes"),
        (
            {"content": "content", "style": "style", "content_mask": "mask"},
            "a mask must have the size of its picture, 56x40 pixels. Received: 9x9.",
        ),
    ],
)
def test_what_is_wrong_gets_a_sentence(browser, photographs, chosen, words):
    choose(browser, photographs, **chosen)
    browser.run(RUN)
    said = browser.wait(SAID)
    assert words in " ".join(said.split()) and str(photographs) not in said


@needs_browser
def test_two_people_at_once_get_each_their_own(browser, server, photographs):
    with Browser(390, 844) as other:
        other.open(server)
        other.wait("document.querySelector('#restyle') != null")
        choose(browser, photographs, content="content", style="style")
        choose(other, photographs, content="other", style="style")
        for page in (browser, other):
            page.run(RUN)
        for page, size in ((browser, [56, 40]), (other, [48, 64])):
            page.wait(DONE)
            image = "document.querySelectorAll('#result img')[1]"
            page.wait(f"{image}.naturalWidth")
            assert page.run(f"[{image}.naturalWidth, {image}.naturalHeight]") == size
        assert other.run("document.documentElement.scrollWidth") <= 390


def upload(server, content):
    """Uploads a PNG without a browser, and returns its path on the server."""
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{server}/gradio_api/upload",
        body + content + b"\r\n--x--\r\n",
        {"content-type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(request) as response:
        (path,) = json.load(response)
    return path


def restyle(server, path):
    """Runs the transfer without a browser, with a photograph as its own style."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = [file, file, 1, 1, "ot", "none", False, None, None]
    request = urllib.request.Request(
        f"{server}/gradio_api/call/restyle",
        json.dumps({"data": data}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        number = json.load(response)["event_id"]
    with urllib.request.urlopen(f"{server}/gradio_api/call/restyle/{number}") as response:
        return response.read().decode()


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# One in which the first channel means green and the second one red.
SWAPPED = SRGB.replace(b"rXYZ", b"none").replace(b"gXYZ", b"rXYZ").replace(b"none", b"gXYZ")


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (None, (200, 40, 90)),
        (SRGB, (200, 40, 90)),
        (SWAPPED, (40, 200, 90)),
        (SWAPPED[:200], (200, 40, 90)),
        (SWAPPED[:128] + bytes(500), (200, 40, 90)),
    ],
    ids=["none", "sRGB", "swapped", "cut", "damaged"],
)
def test_what_is_shown_has_the_colours_that_the_profile_means(server, profile, expected):
    written = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 40, 90)).save(written, "PNG", icc_profile=profile)
    events = restyle(server, upload(server, written.getvalue()))
    (before, _), _ = json.loads(re.search("^data: (.*)$", events, re.MULTILINE)[1])
    with urllib.request.urlopen(before["url"]) as response, Image.open(response) as image:
        assert image.format == "JPEG" and "icc_profile" not in image.info
        np.testing.assert_allclose(image.getpixel((16, 16)), expected, atol=6)


def test_only_files_that_were_uploaded_are_read(server, photographs):
    events = restyle(server, str(photographs / "content.png"))
    assert events.startswith("event: error") and "content-styled" not in events
