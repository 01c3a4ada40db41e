"""The programs in docs/migrating.md run as they stand, and its lists of names are complete."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosting import host, plain
from processes import DEADLINE, Process, open_client
from support import RawClient, close, text
from test_compat_install import CONFIG

DOCUMENT = (Path(__file__).parents[1] / "docs/migrating.md").read_text(encoding="utf-8")

PROGRAMS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

#: Makes a server take any port and announce it.
ANNOUNCE = """
import gevent.pywsgi

def announce(self, serve_forever=gevent.pywsgi.WSGIServer.serve_forever):
    self.start()
    print(f"listening on ws://127.0.0.1:{self.server_port}", flush=True)
    serve_forever(self)

gevent.pywsgi.WSGIServer.serve_forever = announce
"""


@pytest.fixture
def installed() -> Iterator[None]:
    """What install() has done is undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "geventwebsocket"]:
        del sys.modules[name]


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 6
    # That one is run by tox -e programs, which has what it imports.
    assert "flask_socketio" in PROGRAMS[2]
    compile(PROGRAMS[2], "docs/migrating.md", "exec")


def test_server_echoes(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    assert PROGRAMS[0].count("8000") == 1
    path.write_text(ANNOUNCE + PROGRAMS[0].replace("8000", "0"), encoding="utf-8")
    with Process(path) as process, open_client(process.url(), "/echo") as client:
        for message in ("hello", b"\x00\xff"):
            client.send(message)
            assert client.recv(timeout=DEADLINE) == message


def test_configuration_of_gunicorn() -> None:
    """It is what tests/test_compat_install.py has gunicorn run with."""
    assert PROGRAMS[1].split() == CONFIG.split()


@pytest.mark.parametrize(("number", "path"), [(3, b"/"), (4, b"/echo"), (5, b"/echo")])
@pytest.mark.usefixtures("installed")
def test_application_echoes(number: int, path: bytes) -> None:
    names: dict[str, Any] = {"__name__": "site_"}
    exec(compile(PROGRAMS[number], "docs/migrating.md", "exec"), names)
    with host(names["app"]) as server:
        for _ in range(2):
            with RawClient.connect(server.address, path) as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                client.send(close(1000))
                client.expect_close(1000)
                client.expect_end()
        if "a page" in PROGRAMS[number]:
            assert b"a page" in plain(server)


def test_public_names_are_in_the_document() -> None:
    import geventws.compat
    import geventws.compat.handler
    import geventws.compat.websocket

    for module in (geventws.compat, geventws.compat.handler, geventws.compat.websocket):
        assert [name for name in module.__all__ if name not in DOCUMENT] == []
    methods = [name for name in vars(geventws.compat.WebSocket) if not name.startswith(("_", "OPCODE_"))]
    assert [name for name in methods if not re.search(rf"\b{name}\b", DOCUMENT)] == []
