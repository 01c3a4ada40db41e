"""Flask-SocketIO in a browser: Socket.IO's own client in Chromium (Debian: chromium, nodejs, npm)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from programs.starting import HERE, serve

pytestmark = pytest.mark.deadline(110)

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Socket.IO's client, as package-lock.json pins it."""
    if shutil.which("npm") is None:
        pytest.fail("no npm on PATH, which brings Socket.IO's client (Debian: apt-get install nodejs npm)")
    place = os.environ.get("GEVENTWS_PROGRAMS_DIR")
    folder = Path(place) if place else tmp_path_factory.mktemp("node")
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "node_modules/socket.io-client/dist/socket.io.min.js"
    for name in ("package.json", "package-lock.json"):
        wanted = (HERE / name).read_bytes()
        if not (folder / name).exists() or (folder / name).read_bytes() != wanted:
            found.unlink(missing_ok=True)
            (folder / name).write_bytes(wanted)
    if not found.exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
    return found


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    """The command that opens a page."""
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else CHROMIUM
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("no Chromium on PATH (Debian: apt-get install chromium; or CHROMIUM=program)")
    return [
        path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--no-proxy-server", f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
    ]  # fmt: skip


@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
@pytest.mark.parametrize("how", ["changed", "gunicorn worker"])
def test_socketio_in_chromium(
    how: str,
    transports: str,
    library: Path,
    browser: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOCKETIO_JS", str(library))
    monkeypatch.setenv("SOCKETIO_PAGE", str(HERE / "socketio_page.html"))
    with serve("socketio_app", how, tmp_path) as (process, address):
        url = f"http://{address}/test?transports={transports}"
        with open(tmp_path / "chromium.log", "wb") as log:
            chromium = subprocess.Popen(
                [*browser, url], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            lines = {process.read_line() for _ in range(2)}
        finally:
            os.killpg(chromium.pid, signal.SIGKILL)
            chromium.wait()
        assert "result websocket; hällo; 0 255 128; 600000; 0 1 2 3 4; io client disconnect" in lines, lines
