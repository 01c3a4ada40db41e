"""`geventws connect`: a WebSocket at the terminal, and in pipes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gevent
import gevent.ssl
from gevent.socket import wait_read

from ..exceptions import ConnectionClosed, ConnectionClosedOK, PingTimeout, WebSocketError
from .connect import connect
from .lineedit import LineEditor
from .output import Output, TerminalError, columns, escape

if TYPE_CHECKING:
    from ..pong import Pong
    from ..websocket import WebSocket

__all__ = ["TerminalError", "add_arguments", "answer_lines", "escape", "run"]

#: Characters and lines of the body of a refusal that are shown, and kinds that are text besides "text/...".
_ANSWER_SIZE = 2000
_ANSWER_LINES = 20
_TEXTS = ("json", "xml", "javascript", "x-www-form-urlencoded")

#: Bytes that are read from standard input at a time.
_READ_SIZE = 64 * 1024

#: Seconds that a server has for its Close where the user does not wait for it.
_PATIENCE = 1.0

_HELP = """\
Each line is sent as a text message. Commands:
  /ping [TEXT]            send a Ping, and show how long its Pong takes
  /binary FILE            send the content of a file as a binary message
  /close [CODE [REASON]]  close (Ctrl-D: with 1000)
  /help                   this
A line that begins with two slashes is sent with one."""


def answer_lines(error: BaseException) -> list[str]:
    """Return what a server or proxy said in the body of its refusal, escaped and not too much of it."""
    response = getattr(error, "response", None)
    body: bytes = getattr(response, "body", b"")
    if response is None or not body.strip():
        return []
    size = f"{len(body)} byte{'' if len(body) == 1 else 's'}"
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    coding = response.headers.get("Content-Encoding", "")
    if coding:
        return [f"< ({size}, encoded as {escape(coding)})"]
    if kind and not kind.startswith("text/") and not kind.endswith(_TEXTS):
        return [f"< ({size} of {escape(kind)})"]
    text = body.decode("utf-8", "backslashreplace").strip("\r\n")
    if not kind and "\0" in text:
        return [f"< ({size})"]
    lines = [escape(line.rstrip("\r")) for line in text[:_ANSWER_SIZE].split("\n")]
    more = [f"< ... ({size} came)"] if len(text) > _ANSWER_SIZE or len(lines) > _ANSWER_LINES else []
    return [f"< {line}" for line in lines[:_ANSWER_LINES]] + more


def add_arguments(parser: argparse.ArgumentParser, limit: Callable[[str], int | None]) -> None:
    """Declare the arguments of the command; `limit` reads a number or "none"."""
    parser.add_argument(
        "uri", metavar="URI", help="ws://host[:port][/path], wss://..., ws+unix:/path/to/socket"
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a further field of the request; repeatable",
    )
    parser.add_argument("--origin", help="the Origin to name, as a browser would")
    parser.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer; repeatable",
    )
    parser.add_argument(
        "--compression", action="store_true", help="compress messages where the server can (RFC 7692)"
    )
    parser.add_argument(
        "--cafile", metavar="FILE", help="for wss: trust the authorities in this file (PEM) instead"
    )
    parser.add_argument("--insecure", action="store_true", help="for wss: take any certificate for any name")
    parser.add_argument(
        "--proxy",
        metavar="URL",
        help="http://, socks5:// or socks5h://, or none (default: what the environment says)",
    )
    parser.add_argument(
        "--max-message-size",
        type=limit,
        default=1024 * 1024,
        metavar="N|none",
        help="bytes of one message (default: 1048576)",
    )
    parser.add_argument("--timestamps", action="store_true", help="show when each message came")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto, on a terminal"
    )
    parser.add_argument(
        "--raw", action="store_true", help="write messages as they come, control characters too"
    )


def run(options: argparse.Namespace) -> int:
    """Connect, and go on until it is closed; returns the exit status.

    Raises:
        TerminalError, WebSocketError: with a text for standard error.
        SystemExit: after SIGINT or SIGTERM, when it is closed.
    """
    with _signals_end_it():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    # What the shell calls <&- and >&-: their numbers would be those of sockets now.
    if sys.stdin is None or sys.stdout is None:
        raise TerminalError(
            "standard input or output is closed: /dev/null is what has nothing to say, and takes everything"
        )
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        ws = connect(options.uri, **_connect_arguments(options))
    except (TypeError, ValueError) as error:
        raise TerminalError(str(error)) from None
    output = Output(sys.stdout, options)
    try:
        if interactive:
            Session(ws, output).run()
        else:
            _pipe(ws, output)
    except BrokenPipeError:
        # Nobody reads any more. What is buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(ws)
        return 1
    except BaseException:
        _leave(ws)
        raise
    end = ws.close_error
    good = isinstance(end, ConnectionClosedOK)
    if interactive:
        output.note(f"closed: {end}")
    elif not good:
        raise TerminalError(f"closed: {end}")
    return 0 if good else 1


def _leave(ws: WebSocket) -> None:
    """Close, without much patience."""
    ws.begin_close(1001, "")
    ws.wait_closed(_PATIENCE)
    ws.abort()


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let SIGINT and SIGTERM end this greenlet with SystemExit, so that everything is closed and put back.

    A KeyboardInterrupt would come up in the event loop, which prints it.
    """
    current = gevent.getcurrent()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    watchers = [
        gevent.signal_handler(number, gevent.kill, current, SystemExit(128 + number)) for number in previous
    ]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _connect_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `connect` for those of the command."""
    headers = []
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon:
            raise TerminalError("--header takes 'NAME: VALUE', and this one has no colon")
        headers.append((name, value.strip(" \t")))
    arguments: dict[str, Any] = {
        "headers": headers,
        "origin": options.origin,
        "subprotocols": options.subprotocol,
        "compression": True if options.compression else None,
        "max_message_size": options.max_message_size,
    }
    if options.proxy is not None:
        arguments["proxy"] = None if options.proxy == "none" else options.proxy
    if options.cafile is not None or options.insecure:
        try:
            context = gevent.ssl.create_default_context(cafile=options.cafile)
        except OSError as error:
            raise TerminalError(
                f"cannot use {options.cafile} as authorities: {error.strerror or error}"
            ) from None
        if options.insecure:
            context.check_hostname = False
            context.verify_mode = gevent.ssl.CERT_NONE
        arguments["ssl_context"] = context
    return arguments


# In pipes


def _pipe(ws: WebSocket, output: Output) -> None:
    """Send the lines of standard input; print what comes back until the Close is answered."""
    # Its errors are ours to raise, not for gevent to print.
    failures: list[Exception] = []

    def send() -> None:
        try:
            _send_lines(ws)
        except ConnectionClosed:
            pass  # The receiving side tells.
        except Exception as error:
            failures.append(error)
            ws.begin_close(1001, "")

    sender = gevent.spawn(send)
    try:
        for message in _messages(ws):
            output.message(message)
        ws.wait_closed()
        if failures:
            raise failures[0]
    finally:
        sender.kill(block=False)


def _messages(ws: WebSocket) -> Iterator[Any]:
    """Give the messages until the connection is over, in whatever way."""
    while True:
        try:
            message = ws.receive()
        except ConnectionClosed:
            return
        yield message


def _send_lines(ws: WebSocket) -> None:
    """Send standard input line by line, then a Close."""
    pool = gevent.get_hub().threadpool
    descriptor = sys.stdin.fileno()
    # The beginning of a line, in pieces: joining each time would cost the square of a long one.
    pieces: list[bytes] = []
    number = 0
    while True:
        # In a thread: not every kind of file can tell when there is something to read.
        data = pool.apply(_read, (descriptor,))
        if isinstance(data, OSError):
            raise TerminalError(f"cannot read standard input: {data.strerror}")
        first, *others = data.split(b"\n")
        pieces.append(first)
        if not others and data:
            continue
        lines = [b"".join(pieces), *others]
        # What is behind the last line end is no line, until the input ends.
        pieces = [lines.pop()] if data or not lines[-1] else []
        for line in lines:
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError:
                raise TerminalError(
                    f"line {number} of the input is not UTF-8, which a text message is"
                ) from None
            ws.send(text)
        if not data:
            break
    try:
        # Many servers drop what they still have to say once they see a Close: they get a round trip first.
        ws.ping().wait(5)
    except PingTimeout:
        pass
    ws.end_sending()


def _read(descriptor: int) -> bytes | OSError:
    """Read in a thread of the pool, which prints what is raised in it."""
    try:
        return os.read(descriptor, _READ_SIZE)
    except OSError as error:
        return error


# At the terminal


class Session:
    """A person, a terminal and a WebSocket."""

    def __init__(self, ws: WebSocket, output: Output) -> None:
        self._ws = ws
        self._output = output
        self._editor = LineEditor()

    def run(self) -> None:
        """Go on until the WebSocket is closed."""
        ws, output = self._ws, self._output
        agreed = [f"subprotocol {ws.subprotocol}"] if ws.subprotocol else []
        agreed += [f"extensions {ws.extensions}"] if ws.extensions else []
        output.note(
            f"connected to {ws.request.host}"
            + (f" ({', '.join(agreed)})" if agreed else "")
            + "; /help helps"
        )
        with _keys(sys.stdin.fileno(), self._redraw):
            output.editor = self._editor
            output.write(self._editor.draw(columns()))
            keyboard = gevent.spawn(self._type)
            try:
                for message in _messages(ws):
                    output.message(message)
                ws.wait_closed()
            finally:
                output.editor = None
                # A terminal that was stopped (Ctrl-S) takes nothing.
                with gevent.Timeout(_PATIENCE, False):
                    output.write("\r\x1b[K")
                keyboard.kill(block=False)

    def _redraw(self) -> None:
        """Draw the line again, below whatever else was shown."""
        if self._output.editor is not None:
            self._output.write(self._editor.draw(columns()))

    def _type(self) -> None:
        """Read the keyboard to the end."""
        descriptor = sys.stdin.fileno()
        editor = self._editor
        while not editor.ended:
            wait_read(descriptor)
            data = os.read(descriptor, _READ_SIZE)
            if not data:
                break
            for line in editor.feed(data):
                self._output.write(f"\r\x1b[K> {line}\n")
                if line:
                    self._do(line)
            self._redraw()
        self._ws.begin_close(1000, "")

    def _do(self, line: str) -> None:
        """Do what a line says."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._command(*line[1:].partition(" ")[::2])
            else:
                self._ws.send(line[1:] if line.startswith("/") else line)
        except (TerminalError, WebSocketError, OSError, TypeError, ValueError) as error:
            self._output.note(str(error), "error")

    def _command(self, name: str, argument: str) -> None:
        argument = argument.strip()
        if name == "ping":
            gevent.spawn(self._show_pong, self._ws.ping(argument))
        elif name == "binary":
            if not argument:
                raise TerminalError("/binary takes the name of a file")
            with open(os.path.expanduser(argument), "rb") as file:
                data = file.read()
            self._ws.send(data)
            self._output.note(f"sent {len(data)} bytes")
        elif name == "close":
            code, _, reason = argument.partition(" ")
            if code and not (code.isascii() and code.isdecimal() and len(code) < 6):
                raise TerminalError(f"/close takes a number, not {code!r}")
            # What was typed goes out in its order; answers are shown until the server closes.
            self._ws.end_sending(int(code) if code else 1000, reason)
        elif name == "help":
            for help_line in _HELP.splitlines():
                self._output.note(help_line)
        else:
            raise TerminalError(
                f"there is no command /{name}; /help names them, // sends a line that begins with /"
            )

    def _show_pong(self, pong: Pong) -> None:
        try:
            self._output.note(f"pong after {pong.wait(60) * 1000:.1f} ms")
        except WebSocketError as error:
            self._output.note(str(error), "error")


@contextmanager
def _keys(descriptor: int, redraw: Callable[[], object]) -> Iterator[None]:
    """Have the terminal hand over each key as it is typed, without showing it.

    Ctrl-Z gives it back as it was, and `redraw` is called when this comes to the front again.
    """
    import termios

    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    # Ctrl-C and Ctrl-Z go on meaning what they mean.
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    # So that Enter, Ctrl-V and Ctrl-O come as they are.
    changed[3] &= ~termios.IEXTEN
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    previous = signal.getsignal(signal.SIGTSTP)
    watchers: list[Any] = []

    def watch() -> None:
        # A shell without job control has it ignored.
        if previous is not signal.SIG_IGN:
            watchers.append(gevent.signal_handler(signal.SIGTSTP, stop))

    def stop() -> None:
        watchers.pop().cancel()
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
        # Stops this process where somebody is there to continue it, as only the system knows.
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        termios.tcsetattr(descriptor, termios.TCSANOW, changed)
        watch()
        redraw()

    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    watch()
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        signal.signal(signal.SIGTSTP, previous)
        # Not when all is written: a terminal that was stopped would not have it.
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
