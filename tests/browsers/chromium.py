"""Headless Chromium, driven by its DevTools protocol, which goes through our own client.

Debian's package `chromium`, or the program that CHROMIUM names.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent

from geventws import connect

__all__ = ["Page", "open_page"]

#: Seconds that anything may take on a busy machine.
DEADLINE = 60.0

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# No sandbox: it wants rights that root and containers have not. It sees pages of this machine only.
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
    "--remote-debugging-port=0", "--window-size=1000,700",
)  # fmt: skip


def find_chromium() -> str:
    """Return the program."""
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else _PROGRAMS:
        program = shutil.which(name)
        if program:
            return program
    raise RuntimeError("no Chromium: apt-get install chromium, or name the program in CHROMIUM")


class Page:
    """One page in a browser of its own.

    Attributes:
        errors: what scripts of the page have left uncaught.
    """

    def __init__(self, process: subprocess.Popen[bytes], ws: Any, target: str) -> None:
        self._process = process
        self._ws = ws
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            request["sessionId"] = self._session
        self._ws.send(json.dumps(request))
        while True:
            message = json.loads(self._ws.receive(timeout=DEADLINE))
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]["exceptionDetails"]))

    def go(self, url: str) -> None:
        """Load a page."""
        told = self.call("Page.navigate", url=url)
        assert not told.get("errorText"), told

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        until = time.monotonic() + DEADLINE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < until, f"{expression} stays {value!r}: {self.text()}"
            gevent.sleep(0.02)
        return value

    def text(self) -> str:
        """All that can be read on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press the key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key)

    def screenshot(self, path: Path) -> None:
        """Write what it looks like to a file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def vanish(self) -> None:
        """Kill the browser: no Close, no farewell."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def open_page(url: str) -> Iterator[Page]:
    """Start a browser, and load a page; it ends with the `with`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [find_chromium(), *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=os.environ | {"HOME": str(folder)}, start_new_session=True,
            )  # fmt: skip
        stack.callback(_end, process)
        until = time.monotonic() + DEADLINE
        while not (
            found := re.search(r"^DevTools listening on (ws://\S+)", log.read_text("utf-8", "replace"), re.M)
        ):
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < until, log.read_text("utf-8", "replace")
            gevent.sleep(0.02)
        ws = connect(found[1], proxy=None, max_message_size=64 * 1024 * 1024, open_timeout=DEADLINE)
        stack.callback(ws.abort)
        ws.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
        targets = json.loads(ws.receive(timeout=DEADLINE))["result"]["targetInfos"]
        page = Page(process, ws, next(target["targetId"] for target in targets if target["type"] == "page"))
        page.go(url)
        yield page


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
