"""`geventws connect`: in pipes, at a terminal, and what it says when it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from scripted import Connection, scripted, server_frame
from support import PATIENCE, serve, wait_until

from geventws import WebSocket
from geventws.cli import main
from geventws.client.terminal import escape

COMMAND = [sys.executable, "-W", "error", "-m", "geventws", "connect"]


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def uri_of(server: Any) -> str:
    return f"ws://127.0.0.1:{server.address[1]}"


def pipe(*arguments: str, data: bytes = b"", **environ: str) -> tuple[int, bytes, str]:
    """Run the command with this standard input; gives status, output and errors."""
    # In a thread: the server is in this process.
    done = gevent.get_hub().threadpool.apply(
        subprocess.run,
        ([*COMMAND, *arguments],),
        {"input": data, "capture_output": True, "timeout": PATIENCE, "env": {**os.environ, **environ}},
    )
    return done.returncode, done.stdout, done.stderr.decode()


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, with pipes; it is gone at the end."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()


class TestPipes:
    def test_lines_go_there_and_come_back(self) -> None:
        with serve(echo) as server:
            assert pipe(uri_of(server), data="one\ntwö\n\nlast".encode()) == (
                0,
                "one\ntwö\n\nlast\n".encode(),
                "",
            )
            assert pipe(uri_of(server), data=b"with its end\n") == (0, b"with its end\n", "")
            assert pipe(uri_of(server)) == (0, b"", "")

    def test_many_and_long_lines(self) -> None:
        data = b"".join(b"%d\n" % number for number in range(5000)) + b"x" * 500_000 + b"\n"
        with serve(echo) as server:
            assert pipe(uri_of(server), data=data) == (0, data, "")

    def test_it_prints_until_the_close_is_answered(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            assert connection.read_frame() == (0x81, b"question")
            first, payload = connection.read_frame()
            connection.send(server_frame(0x8A, payload))
            assert first == 0x89
            assert connection.read_frame() == (0x88, b"\x03\xe8")
            connection.send(server_frame(0x81, b"late"), server_frame(0x81, b"answers"))
            connection.send(server_frame(0x88, b"\x03\xe8"))

        with scripted(script) as server:
            assert pipe(server.uri, data=b"question\n") == (0, b"late\nanswers\n", "")

    def test_what_a_hostile_server_sends_is_escaped(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(
                server_frame(0x81, "\x1b[2J\x9b31m\r\n\x00\x07\u202e\u2028tab\tend\\ ü日".encode())
            )
            connection.send(server_frame(0x82, b"\x1b\x00\xff"), server_frame(0x82, bytes(300)))
            connection.send(server_frame(0x88, b"\x0f\xa0\x1b]0;x"))
            connection.read_frame()

        with scripted(script) as server:
            status, output, errors = pipe(server.uri, PYTHONIOENCODING="utf-8")
        lines = output.decode().splitlines()
        assert lines[0] == r"\x1b[2J\x9b31m\r\n\x00\x07\u202e\u2028tab" + "\tend\\ ü日"
        assert lines[1] == "(3 bytes) 1b 00 ff"
        assert lines[2].startswith("(300 bytes) 00 00")
        assert lines[2].endswith(" ...")
        assert len(lines) == 3
        assert status == 1
        assert errors.startswith("geventws: closed: received 4000 (private use) '\\x1b]0;x'")
        assert errors.count("\n") == 1

    def test_refusals_are_escaped(self) -> None:
        with scripted(lambda connection: connection.answer(b"403 \x9b31m")) as server:
            status, output, errors = pipe(server.uri)
        assert (status, output) == (1, b"")
        assert "\x9b" not in errors
        assert errors.count("\n") == 1

    def test_the_body_of_a_refusal_is_shown_and_escaped(self) -> None:
        body = "not here: \x1b]0;x\x07\r\n\n  ü\u202e ".encode() + b"\xff\n"
        fields = (b"Content-Type: text/plain",)
        status_line = b"501 Not Implemented"
        with scripted(lambda connection: connection.answer(status_line, *fields, body=body)) as server:
            status, output, errors = pipe(server.uri, PYTHONIOENCODING="utf-8")
        assert (status, output) == (1, b"")
        first, *lines = errors.splitlines()
        assert first.startswith(f"geventws: {server.uri}/: ")
        assert "501" in first
        assert lines == [r"< not here: \x1b]0;x\x07", "< ", r"<   ü\u202e \xff"]

    @pytest.mark.parametrize(
        ("fields", "body", "lines"),
        [
            ((b"Content-Type: text/html; charset=utf-8",), b"<p>\n\n", ["< <p>"]),
            ((b"Content-Type: application/json",), b'{"error": 1}', ['< {"error": 1}']),
            ((b"Content-Type: application/problem+json",), b"{}", ["< {}"]),
            ((), b"plain", ["< plain"]),
            ((), b"\x00\x01\xff", ["< (3 bytes)"]),
            ((b"Content-Type: image/png",), b"\x89PNG\x1b[1m", ["< (8 bytes of image/png)"]),
            ((b"Content-Type: image/\x9b1m",), b"x", [r"< (1 byte of image/\x9b1m)"]),
            (
                (b"Content-Type: text/plain", b"Content-Encoding: gzip"),
                b"\x1f\x8b",
                ["< (2 bytes, encoded as gzip)"],
            ),
            ((), b" \r\n ", []),
            ((), b"", []),
            ((), b"0123456789" * 250, ["< " + "0123456789" * 200, "< ... (2500 bytes came)"]),
            ((), b"0\n" * 50, ["< 0"] * 20 + ["< ... (100 bytes came)"]),
        ],
    )
    def test_bodies_of_refusals(self, fields: tuple[bytes, ...], body: bytes, lines: list[str]) -> None:
        with scripted(lambda connection: connection.answer(b"403 No", *fields, body=body)) as server:
            status, output, errors = pipe(server.uri)
        assert (status, output) == (1, b"")
        assert errors.splitlines()[1:] == lines

    def test_raw(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(server_frame(0x81, b"\x1b[1m"), server_frame(0x82, b"\xff\x00"))
            connection.send(server_frame(0x88, b"\x03\xe8"))
            connection.read_frame()

        with scripted(script) as server:
            assert pipe(server.uri, "--raw") == (0, b"\x1b[1m\n\xff\x00\n", "")

    def test_output_that_cannot_say_it(self) -> None:
        with serve(echo) as server:
            output = pipe(uri_of(server), data="ü\n".encode(), PYTHONIOENCODING="ascii")
        assert output == (0, b"\\xfc\n", "")

    def test_server_that_ends_it_while_we_could_still_write(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(server_frame(0x81, b"bye"), server_frame(0x88, b"\x03\xe8"))
            connection.read_frame()

        reader, writer = os.pipe()
        try:
            with scripted(script) as server:
                done = gevent.get_hub().threadpool.apply(
                    subprocess.run,
                    ([*COMMAND, server.uri],),
                    {"stdin": reader, "capture_output": True, "timeout": PATIENCE},
                )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"bye\n", b"")
        finally:
            os.close(reader)
            os.close(writer)

    def test_server_that_goes_without_a_word(self) -> None:
        with scripted(lambda connection: (connection.open(), connection.read_frame())) as server:
            status, output, errors = pipe(server.uri, data=b"x\n")
        assert (status, output) == (1, b"")
        assert errors.startswith("geventws: closed: ")

    def test_input_that_is_not_utf_8(self) -> None:
        with serve(echo) as server:
            status, _, errors = pipe(uri_of(server), data=b"good\n\xff\n")
        assert status == 1
        assert errors == "geventws: line 2 of the input is not UTF-8, which a text message is\n"

    def test_nobody_reads_the_output(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            while True:
                connection.send(server_frame(0x81, b"x" * 1000))

        with scripted(script) as server, running(server.uri) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            pool = gevent.get_hub().threadpool
            assert pool.apply(process.stdout.read, (5,)) == b"xxxxx"
            process.stdout.close()
            assert pool.apply(process.wait, (PATIENCE,)) == 1
            assert process.stderr.read() == b""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_output_that_is_full(self, number: signal.Signals) -> None:
        """Who does not read holds up the messages, but neither Pongs nor the end."""
        closes: list[tuple[int, bytes]] = []

        def script(connection: Connection) -> None:
            connection.open()
            # More than the pipe has room for, so that the next one waits.
            for _ in range(3):
                connection.send(server_frame(0x81, b"x" * 60_000))
            connection.send(server_frame(0x89, b"still there?"))
            assert connection.read_frame() == (0x8A, b"still there?")
            wait_until(lambda: full(process.stdout), "the pipe to be full")
            connection.send(server_frame(0x89, b"and now?"))
            assert connection.read_frame() == (0x8A, b"and now?")
            process.send_signal(number)
            closes.append(connection.read_frame())
            connection.send(server_frame(0x88, b"\x03\xe9"))

        def full(stream: Any) -> bool:
            # Linux: what can be read; 64 KiB is the size of a pipe.
            count = bytearray(4)
            fcntl.ioctl(stream, termios.FIONREAD, count)
            return int.from_bytes(count, sys.byteorder) > 60_000

        with scripted(script) as server, running(server.uri) as process:
            assert gevent.get_hub().threadpool.apply(process.wait, (PATIENCE,)) == 128 + number
        assert closes == [(0x88, b"\x03\xe9")]

    def test_slow_reader_gets_everything(self) -> None:
        data = b"".join(b"%d " % number * 2000 + b"\n" for number in range(100))
        with serve(echo) as server, running(uri_of(server)) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            pool = gevent.get_hub().threadpool
            writing = pool.spawn(process.stdin.write, data)
            got = b""
            while len(got) < len(data):
                more = pool.apply(os.read, (process.stdout.fileno(), 5000))
                assert more
                got += more
            assert got == data
            writing.get()
            process.stdin.close()
            assert pool.apply(process.wait, (PATIENCE,)) == 0

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_output_on_a_disk_that_is_full(self) -> None:
        with serve(echo) as server, open("/dev/full", "wb") as full:
            done = gevent.get_hub().threadpool.apply(
                subprocess.run,
                ([*COMMAND, uri_of(server)],),
                {"input": b"x\n", "stdout": full, "stderr": subprocess.PIPE, "timeout": PATIENCE},
            )
        assert done.returncode == 1
        assert done.stderr == b"geventws: cannot write to standard output: No space left on device\n"

    def test_input_that_cannot_be_read(self, tmp_path: Path) -> None:
        with serve(echo) as server, open(tmp_path / "file", "wb") as unreadable:
            done = gevent.get_hub().threadpool.apply(
                subprocess.run,
                ([*COMMAND, uri_of(server)],),
                {"stdin": unreadable, "capture_output": True, "timeout": PATIENCE},
            )
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == b"geventws: cannot read standard input: Bad file descriptor\n"

    @pytest.mark.parametrize("closed", ["<&-", ">&-"])
    def test_closed_descriptors(self, closed: str) -> None:
        command = shlex.join([*COMMAND, "ws://127.0.0.1:1/"])
        done = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, timeout=PATIENCE)
        assert done.returncode == 1
        assert done.stderr == (
            b"geventws: standard input or output is closed: "
            b"/dev/null is what has nothing to say, and takes everything\n"
        )

    def test_arguments(self) -> None:
        seen: list[WebSocket] = []

        def note(ws: WebSocket) -> None:
            seen.append(ws)
            ws.send(ws.extensions)

        with serve(note, subprotocols=["b"], compression=True, origins=["https://example.com"]) as server:
            status, output, _ = pipe(
                uri_of(server), "--header", "X-A: 1", "--header", "X-B:2", "--origin", "https://example.com",
                "--subprotocol", "a", "--subprotocol", "b", "--compression", "--timestamps", "--color=always",
            )  # fmt: skip
        assert status == 0
        (ws,) = seen
        assert ws.request.headers["X-A"] == "1"
        assert ws.request.headers["X-B"] == "2"
        assert ws.subprotocol == "b"
        assert re.fullmatch(rb"\x1b\[36m\[\d\d:\d\d:\d\d\.\d{3}\] permessage-deflate.*\x1b\[0m\n", output)

    def test_tls(self, tmp_path: Path) -> None:
        import trustme

        authority = trustme.CA()
        context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authorities = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(authorities))
        with serve(echo, ssl_context=context) as server:
            uri = uri_of(server).replace("ws:", "wss:")
            status, _, errors = pipe(uri, data=b"x\n")
            assert status == 1
            assert "certificate" in errors
            assert pipe(uri, "--cafile", str(authorities), data=b"x\n") == (0, b"x\n", "")
            assert pipe(uri, "--insecure", data=b"x\n") == (0, b"x\n", "")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals(self, number: signal.Signals) -> None:
        closes: list[tuple[int, bytes]] = []

        def script(connection: Connection) -> None:
            connection.open()
            process.send_signal(number)
            closes.append(connection.read_frame())
            connection.send(server_frame(0x88, b"\x03\xe9"))

        with scripted(script) as server:
            process = subprocess.Popen(
                [*COMMAND, server.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                assert gevent.get_hub().threadpool.apply(process.wait, (PATIENCE,)) == 128 + number
                assert process.stderr is not None
                assert process.stderr.read() == b""
            finally:
                process.kill()
                process.communicate()
        assert closes == [(0x88, b"\x03\xe9")]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["http://example.com"], "URI 'http://example.com' does not begin with ws://"),
            (["ws://[::1/"], "no valid host"),
            (["ws://127.0.0.1:1/", "--header", "Cookie=SECRET"], "--header takes 'NAME: VALUE'"),
            (["ws://joe@example.com:SECRET"], "'ws://***@example.com:***' has no valid host and port"),
            (["ws://127.0.0.1:1/", "--header", "A: b\r\nC: d"], "control characters"),
            (["ws://127.0.0.1:1/", "--subprotocol", "a b"], "not a token"),
            (
                ["wss://127.0.0.1:1/", "--cafile", "/nonexistent.pem"],
                "cannot use /nonexistent.pem as authorities",
            ),
            (["ws://127.0.0.1:1/", "--proxy", "ftp://x"], "a proxy is http://"),
        ],
    )
    def test_one_line_on_standard_error(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert main(["connect", *arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("geventws: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1

    @pytest.mark.parametrize("arguments", [[], ["ws://a", "ws://b"], ["ws://a", "--max-message-size", "0"]])
    def test_wrong_command_line(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["connect", *arguments])
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.seen = b""

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._descriptor, keys)

    def wait_for(self, text: bytes) -> bytes:
        """Wait until this is shown; gives what was shown since the last time, up to it."""
        limit = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < limit, self.seen
            if not self._read():
                raise AssertionError(self.seen)
        found, _, self.seen = self.seen.partition(text)
        return found

    def _read(self) -> bool:
        while not select.select([self._descriptor], [], [], 0)[0]:
            gevent.sleep(0.005)
        try:
            data = os.read(self._descriptor, 65536)
        except OSError as error:
            # Linux says so when the other side is closed.
            if error.errno == errno.EIO:
                return False
            raise
        self.seen += data
        return bool(data)

    def wait(self) -> int:
        """Wait for its end, and return the status."""
        with gevent.Timeout(PATIENCE):
            while self._read():
                pass
        return self.process.wait(PATIENCE)


#: A shell with job control, for which it needs a terminal that is its own.
SHELL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp("sh", ["sh", "-mc", '"$@"; stty -a; fg', "sh", *sys.argv[1:]])
"""


@contextmanager
def terminal(*arguments: str, shell: bool = False) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [*([sys.executable, "-c", SHELL] if shell else []), *COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class TestTerminal:
    def test_conversation(self, tmp_path: Path) -> None:
        data = tmp_path / "data.bin"
        data.write_bytes(b"\x01\x02\x03")
        with serve(echo) as server, terminal(uri_of(server)) as screen:
            screen.wait_for(b"connected to 127.0.0.1:")
            screen.wait_for(b"> ")
            screen.type(b"helo\x1b[Dl\r")
            screen.wait_for(b"< hello")
            screen.type(b"\x1b[A!\r")
            screen.wait_for(b"< hello!")
            screen.type(b"//slash\r")
            screen.wait_for(b"< /slash")
            screen.type(b"/ping x\r")
            screen.wait_for(b"pong after ")
            screen.type(b"/binary " + bytes(data) + b"\r")
            screen.wait_for(b"sent 3 bytes")
            screen.wait_for(b"< (3 bytes) 01 02 03")
            screen.type(b"/help\r")
            screen.wait_for(b"/close [CODE [REASON]]")
            for wrong, answer in (
                (b"/nonsense", b"there is no command /nonsense"),
                (b"/binary", b"takes the name of a file"),
                (b"/binary /nonexistent", b"No such file"),
                (b"/close abc", b"takes a number"),
                (b"/close 1005", b"1005"),
                (b"/ping " + b"x" * 126, b"at most 125 bytes"),
            ):
                screen.type(wrong + b"\r")
                screen.wait_for(b"> " + wrong[:60])
                screen.wait_for(answer)
            screen.type(b"/close 4000 done\r")
            screen.wait_for(b"closed: sent 4000 (private use) 'done', then received 4000")
            assert screen.wait() == 1

    def test_end_of_input_closes(self) -> None:
        with serve(echo) as server, terminal(uri_of(server), "--timestamps", "--color", "never") as screen:
            screen.wait_for(b"> ")
            screen.type(b"x\r")
            assert re.search(rb"\[\d\d:\d\d:\d\d\.\d{3}\] $", screen.wait_for(b"< x"))
            screen.type(b"\x04")
            screen.wait_for(b"closed: sent 1000")
            assert screen.wait() == 0

    def test_hostile_server(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(server_frame(0x81, b"\x1b]0;title\x07"))
            connection.send(server_frame(0x88, b"\x0f\xa0\x1b[2J"))
            connection.read_frame()

        with scripted(script) as server, terminal(server.uri) as screen:
            screen.wait_for(rb"< \x1b]0;title\x07")
            shown = screen.wait_for(rb"\x1b[2J")
            assert b"\x1b]" not in shown
            assert screen.wait() == 1

    def test_terminal_that_was_stopped(self) -> None:
        """Ctrl-S holds up what is shown, and nothing else."""

        def script(connection: Connection) -> None:
            connection.open()
            screen.wait_for(b"> ")
            screen.type(b"\x13")
            # Until the terminal has seen that, it takes what comes.
            for number in range(10):
                connection.send(server_frame(0x81, b"message"), server_frame(0x89, b"%d" % number))
                assert connection.read_frame() == (0x8A, b"%d" % number)
            screen.process.send_signal(signal.SIGTERM)
            assert connection.read_frame() == (0x88, b"\x03\xe9")
            connection.send(server_frame(0x88, b"\x03\xe9"))
            done.set()

        done = Event()
        with scripted(script) as server, terminal(server.uri) as screen:
            assert done.wait(PATIENCE)
            assert gevent.get_hub().threadpool.apply(screen.process.wait, (PATIENCE,)) == 143

    def test_stop_and_continue(self) -> None:
        """Ctrl-Z leaves a terminal that echoes; who comes back finds the line that was being edited."""
        with serve(echo) as server, terminal(uri_of(server), "--color", "never", shell=True) as screen:
            screen.wait_for(b"\r> ")
            screen.type(b"ab")
            screen.wait_for(b"\r> ab")
            screen.type(b"\x1a")
            shown = screen.wait_for(b"\r> ab")
            assert b" icanon" in shown
            assert b" echo " in shown
            assert not termios.tcgetattr(screen._descriptor)[3] & (termios.ICANON | termios.ECHO)
            screen.type(b"\x1b[Dc\r")
            screen.wait_for(b"< acb")
            screen.type(b"\x04")
            screen.wait_for(b"closed: sent 1000")

    def test_terminal_is_as_it_was(self) -> None:
        with serve(echo) as server, terminal(uri_of(server)) as screen:
            flags = termios.ICANON | termios.ECHO
            screen.wait_for(b"> ")
            assert not termios.tcgetattr(screen._descriptor)[3] & flags
            screen.process.send_signal(signal.SIGINT)
            screen.wait_for(b"\x1b[K")
            limit = time.monotonic() + PATIENCE
            while screen.process.poll() is None:
                assert time.monotonic() < limit
                gevent.sleep(0.005)
                if select.select([screen._descriptor], [], [], 0)[0]:
                    screen._read()
            assert screen.process.returncode == 130


class TestEscape:
    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("plain ü日 \\", "plain ü日 \\"),
            ("tab\t", "tab\t"),
            ("\x1b[31m", r"\x1b[31m"),
            ("a\r\nb", r"a\r\nb"),
            ("\x7f\x85\x9b", r"\x7f\x85\x9b"),
            ("\u202e\u2066\u200b\ufeff", r"\u202e\u2066\u200b\ufeff"),
            ("\u2028\u2029", r"\u2028\u2029"),
            ("\U000e0001", r"\U000e0001"),
            ("\ud800", r"\ud800"),
            ("", ""),
        ],
    )
    def test_escape(self, text: str, escaped: str) -> None:
        assert escape(text) == escaped
