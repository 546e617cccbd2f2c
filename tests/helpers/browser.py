"""Chromium without a window, driven over pipes by its DevTools protocol; for tests of pages.

(https://chromedevtools.github.io/devtools-protocol; `--remote-debugging-pipe` needs no socket.)
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import packages

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
SECONDS = 60  # that an answer may take on a busy machine


class Browser:
    """A Chromium that runs; `page` opens pages in it."""

    def __init__(self, program: Path, libraries: Path | None, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # ours to write commands, theirs to answer

        def take_places() -> None:  # Chromium reads commands from 3 and answers to 4
            command, answer = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(command, 3)
            os.dup2(answer, 4)

        paths = os.environ.get("LD_LIBRARY_PATH", "")
        if libraries is not None:
            paths = os.pathsep.join([str(libraries), str(libraries / "pulseaudio"), paths])
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"LD_LIBRARY_PATH": paths.strip(os.pathsep), "HOME": str(profile)},
            preexec_fn=take_places,
            close_fds=False,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._write, self._read = ours[1], theirs[0]
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + SECONDS
        while True:
            found = self._receive(deadline)
            if found.get("id") == self._number:
                if "error" in found:
                    raise AssertionError(f"{method}: {found['error']}")
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first event that is wanted, of those that came and are to come."""
        deadline = time.monotonic() + SECONDS
        for event in self.events:
            if wanted(event):
                return event
        while True:
            event = self._receive(deadline)
            self.events.append(event)
            if wanted(event):
                return event

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._read], [], [], max(0, left))
            piece = os.read(self._read, 1 << 20) if ready else b""
            if not piece:
                raise AssertionError("Chromium gave no answer" if not ready else "Chromium ended")
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(line)
        return found

    @contextmanager
    def page(self, address: str, width: int = 1280, *, dark: bool = False) -> Iterator[Page]:
        """Open an address in a new page, and wait until it has loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.send(f"{domain}.enable")
            page.resize(width)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.send("Emulation.setEmulatedMedia", features=[scheme])
            page.send("Page.navigate", url=address)
            self.wait_for(lambda e: page.is_mine(e) and e["method"] == "Page.loadEventFired")
            yield page
        finally:
            self.send("Target.closeTarget", targetId=target)
            self.events = [event for event in self.events if not page.is_mine(event)]


class Page:
    """A page of a `Browser`."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def is_mine(self, event: dict[str, Any]) -> bool:
        return event.get("sessionId") == self._session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def resize(self, width: int, height: int = 900) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def run(self, script: str) -> Any:
        """Return what a script gives, once its promise is kept; fail where it throws."""
        found = self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and release it."""
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console, and every address that it asked for."""
        self.run("new Promise((done) => setTimeout(done, 50))")
        found = []
        for event in filter(self.is_mine, self._browser.events):
            method, about = event["method"], event["params"]
            if method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                found.append(f"{method}: {about}")
            if method == "Network.requestWillBeSent":
                address = about["request"]["url"]
                is_page = about.get("type") == "Document"
                if not is_page and not address.startswith(("data:", "blob:")):
                    found.append(f"asked for {address}")
        return found

    def picture(self, *, whole: bool = False) -> bytes:
        """Return what is seen as PNG; `whole`: also what lies below."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def printed(self) -> bytes:
        """Return the page as PDF."""
        found = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(found["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a running Chromium, and end it: the system's, or the one of tests/packages.py."""
    installed = shutil.which("chromium")
    program = Path(installed) if installed else packages.unpacked(packages.CHROMIUM) / "chromium"
    if not program.exists():
        raise AssertionError("There is no Chromium here. Fetch it: python tests/packages.py")
    libraries = None if installed else packages.libraries(packages.CHROMIUM)
    profile = Path(tempfile.mkdtemp(prefix="deepcnn-chromium-"))
    browser = Browser(program, libraries, profile)
    try:
        yield browser
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)
