"""The programs in README.md run as they stand, on a port of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from processes import Process, open_client

README = Path(__file__).parents[1] / "README.md"

PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)

#: Makes the programs' servers take any port and announce it, as `geventws echo` does.
ANNOUNCE = """
import geventws.server

def announce(self, serve_forever=geventws.server.WebSocketServer.serve_forever):
    self.start()
    print(f"listening on ws://127.0.0.1:{self.server_port}", flush=True)
    serve_forever(self)

geventws.server.WebSocketServer.serve_forever = announce
"""


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    source = PROGRAMS[request.param]
    assert source.count('("127.0.0.1", 8888)') == 1
    path = tmp_path / "program.py"
    path.write_text(ANNOUNCE + source.replace("8888", "0"), encoding="utf-8")
    return path


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize("program", [0], indirect=True)
def test_first_server_echoes(program: Path) -> None:
    with Process(program) as process, open_client(process.url()) as client:
        for message in ("hello", b"\x00\xff", ""):
            client.send(message)
            assert client.recv(timeout=20) == message
        assert process.stop() == 0


def test_client_talks_to_the_server(tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    with Process("-m", "geventws", "echo", "--port", "0") as server:
        client.write_text(PROGRAMS[3].replace("ws://127.0.0.1:8888", server.url()))
        with Process(client) as process:
            assert process.read_line() == "hello"
            assert process.wait() == 0
            assert process.errors() == ""
        assert server.stop() == 0


@pytest.mark.parametrize("program", [1], indirect=True)
def test_rooms_get_their_messages(program: Path) -> None:
    with Process(program) as process:
        url = process.url()
        with (
            open_client(url, "/chat/tea") as one,
            open_client(url, "/chat/tea") as two,
            open_client(url, "/chat/coffee") as other,
        ):
            # A message of each comes back: all three are in their rooms then.
            for client in (one, two, other):
                client.send("here")
            for client, count in ((one, 2), (two, 2), (other, 1)):
                for _ in range(count):
                    client.recv(timeout=20)
            one.send("milk?")
            assert two.recv(timeout=20) == "milk?"
            other.send("black")
            assert other.recv(timeout=20) == "black"


@pytest.mark.parametrize("option", ["--with-threads", "--without-threads", "--debugger"])
def test_flask_app_runs_with_flask_run(option: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAMS[2], encoding="utf-8")
    command = ("-m", "flask", "--app", path, "run", "--port", "0", "--no-reload")
    with Process(*command, option) as process:
        address = process.wait_for_error(r"Running on http://(127\.0\.0\.1:\d+)")[1]
        for _ in range(2):
            with open_client(f"ws://{address}", "/echo") as client:
                for message in ("hello", b"\x00\xff"):
                    client.send(message)
                    assert client.recv(timeout=20) == message
        process.wait_for_error(r"(?s)/echo HTTP/1\.1.*101.*/echo HTTP/1\.1.*101")
        assert "Traceback" not in process.errors()
