"""A headless Chromium that tests drive through its DevTools protocol: clicks, keys, sizes, and what a page says."""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
    "--window-size=1400,900",
)  # fmt: skip


class Page:
    """One tab."""

    def __init__(self, socket) -> None:
        self._socket, self._last = socket, 0
        self.console: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """Send a command and wait for its answer; what the page says meanwhile is kept."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message: dict) -> None:
        kind, found = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.console.append(found["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif kind == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning"):
            self.console.append(str(found["args"]))
        elif kind == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.console.append(found["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])

    def run(self, script: str):
        """Value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60):
        """Wait until an expression is true, and return it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"never true in {seconds} s: {script}; console: {self.console}")

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def before_load(self, script: str) -> None:
        """Run this in every page before its own scripts."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def size(self, width: int, height: int = 900, *, dark: bool | None = None) -> None:
        """Change the window, and what the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        if dark is not None:
            feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.call("Emulation.setEmulatedMedia", features=[feature])

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse."""
        place = self.wait(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="none" if kind == "mouseMoved" else "left",
                clickCount=0 if kind == "mouseMoved" else 1,
            )

    def click_until(self, selector: str, script: str) -> None:
        """Click, and again while the page is still moving, until an expression is true."""
        for _ in range(20):
            self.click(selector)
            try:
                self.wait(script, 4)
            except AssertionError:
                continue
            return
        self.wait(script, 1)

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)


@contextmanager
def browser():
    """A page in a fresh Chromium; both are gone afterwards."""
    profile = Path(tempfile.mkdtemp(prefix="a2mae-browser-"))
    process = subprocess.Popen(
        [BROWSER, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = profile / "DevToolsActivePort"
        until = time.monotonic() + 60
        while not (port.exists() and port.read_text().strip()) and time.monotonic() < until:
            time.sleep(0.1)
        number = port.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/json", timeout=60) as answer:
            tab = next(found for found in json.load(answer) if found["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(profile, ignore_errors=True)
