"""Headless Chromium by its DevTools protocol over pipes: no driver and no other package needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
          "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
          "--remote-debugging-pipe")  # fmt: skip
_TIMEOUT = 120


class Browser:
    """One page of a headless browser; a context manager."""

    def __init__(self, profile):
        (to_read, self._to), (self._from, from_write) = os.pipe(), os.pipe()
        # Above 4, so that the two that Chromium expects do not overwrite each other.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write)]

        def place():
            for end, number in zip(ends, (3, 4)):
                os.dup2(end, number)

        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, preexec_fn=place, close_fds=False, **quiet)
        for end in (to_read, from_write, *ends):
            os.close(end)
        self._number, self._buffer, self._session = 0, b"", None
        self.events = []

    def __enter__(self):
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def send(self, method, **params):
        """Send a command and wait for its result; events that arrive meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        deadline = time.monotonic() + _TIMEOUT
        while b"\0" not in self._buffer:
            left = max(0, deadline - time.monotonic())
            assert select.select([self._from], [], [], left)[0], "the browser does not answer"
            self._buffer += os.read(self._from, 1 << 20)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, url, width, height, theme="light"):
        """Open a page in a window of a size, in CSS pixels, and a theme ("light" or "dark")."""
        self.events = []
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.send("Emulation.setEmulatedMedia", media="", features=features)
        self.send("Page.navigate", url=url)
        while self.value("document.readyState + location.href") != "complete" + url:
            time.sleep(0.05)

    def value(self, expression):
        """Evaluate JavaScript in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression):
        """Wait until JavaScript in the page gives something that counts as true."""
        deadline = time.monotonic() + _TIMEOUT
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < deadline, f"waited in vain for {expression}"
            time.sleep(0.05)

    def choose_file(self, selector, path):
        """Give a file to the page's <input type="file">, as a user does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self):
        """Take a PNG of the whole page."""
        clip = {"x": 0, "y": 0, "scale": 1, **self.send("Page.getLayoutMetrics")["cssContentSize"]}
        shot = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def requests(self):
        """URLs that the page has asked for since it was opened."""
        found = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in found]
