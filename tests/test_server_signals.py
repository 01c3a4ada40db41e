"""SIGTERM and SIGINT in a script of the user's own: every client is told, and the exit status is 0.

The clients here are plain sockets that block: the server is in another process.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import IO, Any

import pytest
from asking import UPGRADE

PATIENCE = 60

#: A Close with 1001 and our reason; the client's answer is masked with zeros.
GOING_AWAY = b"\x88\x18\x03\xe9the server is stopping"
ANSWER = b"\x88\x82\0\0\0\0\x03\xe9"

SCRIPT = """
import logging, os, resource, signal, sys
import gevent
from geventws import WebSocketServer

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft < 4096:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))

def echo(ws):
    for message in ws:
        if message == "flood":
            while True:
                ws.send(b"x" * 65536)
        ws.send(message)

{before}
server = WebSocketServer(("127.0.0.1", 0), {handler}, {options})
server.start()
print(server.server_port, flush=True)
server.serve_forever()
print(server.stats.opened, server.stats.closed_clean, len(server.connections), flush=True)
{after}
"""


class Script:
    """The user's script, running."""

    def __init__(self, process: subprocess.Popen[bytes], out: IO[bytes]) -> None:
        self.process = process
        self.port = int(out.readline())

    def connect(self, sent: bytes = UPGRADE) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.sendall(sent)
        if sent == UPGRADE:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            assert head.startswith(b"HTTP/1.1 101 ")
        return sock

    def end(self) -> tuple[int, str, str]:
        """Wait for its exit; the status, and what it printed."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()


@contextlib.contextmanager
def running(options: str = "", handler: str = "echo", before: str = "", after: str = "") -> Iterator[Script]:
    source = SCRIPT.format(options=options, handler=handler, before=textwrap.dedent(before), after=after)
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Script(process, process.stdout)
        finally:
            process.kill()


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow this process the descriptors of 1000 clients."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] < 4096:
        if before[1] < 2048:
            pytest.skip(f"1000 clients need more than {before[1]} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_in_order(number: int) -> None:
    with running() as script, script.connect() as sock:
        sock.sendall(b"\x81\x82\0\0\0\0hi")
        assert sock.recv(100) == b"\x81\x02hi"
        script.process.send_signal(number)
        assert sock.recv(100) == GOING_AWAY
        with pytest.raises(ConnectionRefusedError):
            script.connect()
        sock.sendall(ANSWER)
        assert sock.recv(100) == b""
        sock.close()
        assert script.end() == (0, "1 1 0\n", "")


@pytest.mark.deadline(100)
@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_clients_are_told() -> None:
    """All get 1001, none is forgotten, and the exit status is 0."""
    with running() as script:
        clients = [script.connect() for _ in range(1000)]
        script.process.send_signal(signal.SIGTERM)
        heard: dict[socket.socket, bytes] = {}
        with selectors.DefaultSelector() as selector:
            for sock in clients:
                sock.setblocking(False)
                heard[sock] = b""
                selector.register(sock, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(PATIENCE)
                assert ready, f"{len(selector.get_map())} clients heard nothing more"
                for key, _ in ready:
                    sock: Any = key.fileobj
                    data = sock.recv(4096)
                    heard[sock] += data
                    if data and heard[sock] == GOING_AWAY:
                        sock.send(ANSWER)
                    elif not data:
                        # The server ends TCP first (RFC 6455 section 7.1.1).
                        selector.unregister(sock)
                        sock.close()
        assert len(heard) == 1000
        assert set(heard.values()) == {GOING_AWAY}
        assert script.end() == (0, "1000 1000 0\n", "")


@pytest.mark.deadline(100)
def test_clients_in_every_state() -> None:
    """In the middle of a request, of a message, not reading, not answering: 503, 1001, or cut."""
    with running("stop_timeout=1, write_timeout=None") as script:
        live = [script.connect() for _ in range(29)]
        middle = [script.connect() for _ in range(10)]
        for sock in middle:
            sock.sendall(b"\x81\xfe\x01\x00\0\0\0\0abc")
        mute = [script.connect() for _ in range(5)]
        flooded = [script.connect() for _ in range(5)]
        for sock in flooded:
            sock.sendall(b"\x81\x85\0\0\0\0flood")
            # It is at it.
            assert sock.recv(1, socket.MSG_PEEK) == b"\x82"
        asking = [script.connect(b"GET / HTTP/1.1\r\nHost: a") for _ in range(20)]
        silent = [script.connect(b"") for _ in range(10)]
        # Accepted in order: when this one is open, those before it are with the server.
        live.append(script.connect())
        script.process.send_signal(signal.SIGTERM)
        for sock in [*live, *middle]:
            assert sock.recv(100) == GOING_AWAY
            # The message that was begun is completed first (RFC 6455 section 5.4).
            sock.sendall((b"x" * 253 if sock in middle else b"") + ANSWER)
        for sock in [*live, *middle, *mute, *asking, *silent]:
            data = read_all(sock)
            if sock in mute:
                assert data == GOING_AWAY
            elif sock in asking or sock in silent:
                assert data.startswith(b"HTTP/1.1 503 ")
            else:
                assert data == b""
            sock.close()
        for sock in flooded:
            data = read_all(sock)
            assert data[:1] == b"\x82"
            sock.close()
        status, out, err = script.end()
        assert (status, out) == (0, "50 40 0\n")
        # A line for each request that was refused, and no traceback.
        lines = err.splitlines()
        assert all("refused with 503: the server is stopping" in line for line in lines), err
        assert len(lines) == 30


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_second_signal_cuts(numbers: tuple[int, int]) -> None:
    with running("stop_timeout=None, close_timeout=None") as script, script.connect() as sock:
        script.process.send_signal(numbers[0])
        assert sock.recv(100) == GOING_AWAY
        script.process.send_signal(numbers[1])
        # Without our answer.
        assert sock.recv(100) == b""
        assert script.end() == (0, "1 0 0\n", "")


def test_signal_handlers_are_restored() -> None:
    """Both what Python knows of them and what the system does."""
    before = """
        def mine(*arguments):
            print("mine", flush=True)
        signal.signal(signal.SIGTERM, mine)
        # What started the tests may ignore it, as `nohup ... &` does, and that is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        """
    after = (
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    gevent.sleep(10)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    with running(before=before, after=after) as script:
        with script.connect() as sock:
            # It serves, so that the signals are its own.
            script.process.send_signal(signal.SIGTERM)
            assert sock.recv(100) == GOING_AWAY
            sock.sendall(ANSWER)
        assert script.end() == (-signal.SIGTERM, "1 1 0\nmine\ninterrupted\n", "")


def test_beside_a_signal_handler_of_gevent() -> None:
    """Scripts for other gevent servers call stop() themselves: that is no second signal."""
    before = "gevent.signal_handler(signal.SIGTERM, lambda: server.stop())"
    with running(before=before) as script, script.connect() as sock:
        script.process.send_signal(signal.SIGTERM)
        assert sock.recv(100) == GOING_AWAY
        sock.sendall(ANSWER)
        assert sock.recv(100) == b""
        sock.close()
        assert script.end() == (0, "1 1 0\n", "")


def test_busy_handler_is_killed() -> None:
    before = """
        def busy(ws):
            try:
                gevent.sleep(1000)
            except gevent.GreenletExit:
                print("killed", flush=True)
                raise
        """
    with running("stop_timeout=0.2", handler="busy", before=before) as script, script.connect() as sock:
        script.process.send_signal(signal.SIGTERM)
        assert sock.recv(100) == GOING_AWAY
        sock.sendall(ANSWER)
        sock.close()
        assert script.end() == (0, "killed\n1 1 0\n", "")


def test_keyboard_interrupt_of_a_handler_ends_the_process_as_gevent_does() -> None:
    """It leaves serve_forever(), which stops in order all the same."""
    before = """
        def interrupt(ws):
            if ws.request.path == "/" and ws.receive() == "now":
                raise KeyboardInterrupt
        """
    with running(handler="interrupt", before=before) as script, script.connect() as other:
        with script.connect() as sock:
            sock.sendall(b"\x81\x83\0\0\0\0now")
            assert sock.recv(100)[:4] == b"\x88\x02\x03\xf3"
        assert other.recv(100) == GOING_AWAY
        other.sendall(ANSWER)
        other.close()
        status, out, err = script.end()
        assert status == -signal.SIGINT
        assert out == ""
        assert err.rstrip().endswith("KeyboardInterrupt")
