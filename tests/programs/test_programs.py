"""Programs for gevent-websocket, flask-sockets, flask-sock, bottle-websocket and Flask-SocketIO.

"original" runs a program on the package that it was written for, so that it is one; the others run it with
one line or one import changed. They all hold the same conversation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE, Process, open_client
from programs.starting import ANNOUNCE, HERE, serve
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.deadline(90)


def get(address: str) -> str:
    """The page that every program has."""
    with urllib.request.urlopen(f"http://{address}/", timeout=DEADLINE) as page:
        return page.read().decode()


def receive(client: Any) -> Any:
    return client.recv(timeout=DEADLINE)


def check_echo(address: str, path: str) -> None:
    """Text, binary, long ones, and the end."""
    with open_client(f"ws://{address}", path) as client:
        for message in ("text", "ü" * 50_000, b"\0\xff", b"x" * 900_000, ""):
            client.send(message)
            assert receive(client) == message
        client.close(4001, "bye")
        # gevent-websocket answers with a code of its own making.
        assert client.close_code is not None


@pytest.mark.parametrize("how", ["original", "changed"])
def test_resource_chat(how: str, tmp_path: Path) -> None:
    with serve("resource_chat", how, tmp_path) as (process, address):
        assert "a page" in get(address)
        with open_client(f"ws://{address}", "/chat") as one, open_client(f"ws://{address}", "/chat") as two:
            for name, client in (("Ada", one), ("Bob", two)):
                client.send(json.dumps({"type": "name", "name": name}))
                # Answered: it has its name.
                client.send(json.dumps({"type": "who"}))
                assert name in json.loads(receive(client))["who"]
            one.send(json.dumps({"type": "say", "text": "hi"}))
            for client in (one, two):
                assert json.loads(receive(client)) == {"from": "Ada", "text": "hi"}
            one.close()
            assert process.read_line() == "closed"
            two.send(json.dumps({"type": "who"}))
            assert json.loads(receive(two)) == {"who": ["Bob"]}


@pytest.mark.parametrize("how", ["original", "changed", "gunicorn worker", "gunicorn gevent"])
def test_handler_echo(how: str, tmp_path: Path) -> None:
    with serve("handler_echo", how, tmp_path) as (_, address):
        assert "a page" in get(address)
        check_echo(address, "/")
        check_echo(address, "/any/path")


# The original has no routes on today's Werkzeug.
@pytest.mark.parametrize("how", ["changed", "gunicorn gevent"])
def test_flask_sockets(how: str, tmp_path: Path) -> None:
    with serve("flask_sockets_app", how, tmp_path) as (_, address):
        assert "a page" in get(address)
        check_echo(address, "/echo")
        with open_client(f"ws://{address}", "/room/tea?greeting=hi") as one:
            assert receive(one) == "hi"
            with open_client(f"ws://{address}", "/room/tea") as two:
                assert receive(two) == "hello"
                two.send("milk?")
                for client in (one, two):
                    assert receive(client) == "milk?"


@pytest.mark.parametrize("how", ["flask run", "gunicorn gevent"])
def test_flask_sock(how: str, tmp_path: Path) -> None:
    with serve("flask_sock_app", how, tmp_path) as (_, address):
        assert "a page" in get(address)
        check_echo(address, "/echo")
        with open_client(f"ws://{address}", "/deep/reverse/2") as client:
            for message, answer in (("abc", "cba"), ("de", "ed")):
                client.send(message)
                assert receive(client) == answer
            with pytest.raises(ConnectionClosed):
                receive(client)
            assert client.close_code == 1000
        with open_client(f"ws://{address}", "/impatient") as client:
            assert receive(client) == "nothing came"
            with pytest.raises(ConnectionClosed):
                receive(client)
            assert (client.close_code, client.close_reason) == (4001, "bye")


@pytest.mark.parametrize("how", ["original", "changed"])
def test_bottle(how: str, tmp_path: Path) -> None:
    with serve("bottle_app", how, tmp_path) as (_, address):
        assert "a page" in get(address)
        check_echo(address, "/websocket")
        with open_client(f"ws://{address}", "/websocket") as one:
            one.send("1")
            assert receive(one) == "1"
            with open_client(f"ws://{address}", "/websocket") as two:
                two.send("2")
                for client in (one, two):
                    assert receive(client) == "2"


TALK = """\
echo {'a': [1, 'ü']}
binary b'\\x00\\xff'
big 600000
transport websocket
"""

MORE_TALK = """\
welcome
welcome
joined client 0
joined client 1
joined client 1
said milk?
said milk?
0 1 2 3 4
"""


def talk(address: str, *arguments: str) -> str:
    """Have python-socketio's client talk to a server."""
    command = [
        sys.executable,
        "-W",
        "default",
        str(HERE / "socketio_client.py"),
        f"http://{address}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
@pytest.mark.parametrize("how", ["original", "changed", "gunicorn worker", "gunicorn gevent"])
def test_flask_socketio(how: str, transports: str, tmp_path: Path) -> None:
    with serve("socketio_app", how, tmp_path) as (process, address):
        assert "a page" in get(address)
        assert talk(address, transports) == TALK + MORE_TALK
        for _ in range(2):
            assert process.read_line() in ("disconnected transport close", "disconnected client disconnect")


@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
@pytest.mark.parametrize("how", ["original", "changed"])
def test_socketio_without_flask(how: str, transports: str, tmp_path: Path) -> None:
    with serve("wsgiapp_socketio", how, tmp_path) as (process, address):
        assert talk(address, transports, "--echo-only") == TALK
        assert process.read_line() in ("disconnected transport close", "disconnected client disconnect")


def test_program_of_the_document(tmp_path: Path) -> None:
    document = (HERE.parents[1] / "docs/migrating.md").read_text(encoding="utf-8")
    program = next(
        text for text in re.findall(r"```python\n(.*?)```", document, re.DOTALL) if "flask_socketio" in text
    )
    assert program.count("port=8000") == 1
    path = tmp_path / "program.py"
    path.write_text(ANNOUNCE + program.replace("port=8000", "port=0"), encoding="utf-8")
    with Process("-W", "default", path) as process:
        address = process.url().removeprefix("http://")
        for transports in ("websocket", "polling,websocket"):
            assert talk(address, transports, "--echo-only") == TALK
