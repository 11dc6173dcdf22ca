"""Drives Chromium by its DevTools protocol, over a pipe: https://chromedevtools.github.io."""

import base64
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

__all__ = ["CHROMIUM", "Browser"]

CHROMIUM = shutil.which("chromium")

_PATIENCE = 60  # seconds


class Browser:
    """A page in a headless Chromium.

    Attributes:
      requests: the addresses that the page has asked for.
    """

    def __init__(self, width: int, height: int):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, answers = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = (
            f'exec 3<&{commands[0]} 4>&{answers[1]}; exec "$0" --headless --no-sandbox '
            "--remote-debugging-pipe --disable-gpu --disable-background-networking --no-first-run "
            f'--disable-component-update --user-data-dir="{self._folder.name}" about:blank'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", shell, CHROMIUM],
            pass_fds=(commands[0], answers[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(answers[1])
        self._commands, self._answers = commands[1], answers[0]
        self._numbers, self._read, self.requests = itertools.count(1), b"", []
        self._session = None
        (target,) = (
            found
            for found in self.call("Target.getTargets")["targetInfos"]
            if found["type"] == "page"
        )
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self._commands)  # At which Chromium ends.
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)
        self._folder.cleanup()

    def call(self, method: str, **parameters: object) -> dict:
        """Returns the result of one method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answer()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _answer(self):
        while b"\0" not in self._read:
            assert select.select([self._answers], [], [], _PATIENCE)[0], "Chromium is silent"
            received = os.read(self._answers, 1 << 20)
            assert received, "Chromium has ended"
            self._read += received
        message, self._read = self._read.split(b"\0", 1)
        return json.loads(message)

    def resize(self, width: int, height: int) -> None:
        """Gives the window another size, in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("location.href != 'about:blank' && document.readyState == 'complete'")

    def run(self, script: str) -> object:
        """Returns the value of a JavaScript expression."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script: str) -> object:
        """Waits until a JavaScript expression is true, and returns its value."""
        return self.wait_for(lambda: self.run(script), script)

    def wait_for(self, value: Callable[[], object], name: str = "") -> object:
        """Waits until a function returns something true, and returns that."""
        end = time.monotonic() + _PATIENCE
        while not (found := value()):
            assert time.monotonic() < end, (name, self.run("document.body.innerText"))
            time.sleep(0.1)
        return found

    def upload(self, selector: str, path: pathlib.Path) -> None:
        """Gives a file to the input that a CSS selector finds."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self) -> bytes:
        """Returns the whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        return base64.b64decode(data)
