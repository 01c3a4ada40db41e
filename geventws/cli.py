"""The command `geventws`: an echo server to try clients on, a client to try servers, what is installed.

Errors are one line on standard error: status 1 where something failed, 2 where the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import gevent
from gevent import socket, ssl

from ._implementation import IMPLEMENTATION
from .broadcast import broadcast
from .client import terminal
from .exceptions import WebSocketError
from .options import Options
from .protocol.isal import DEFLATE
from .protocol.uri import unix_uri
from .server import WebSocketServer
from .websocket import WebSocket

__all__ = ["main"]

_PORT = 8888
_HOST = "127.0.0.1"
#: Connections that the system keeps until they are accepted; it cuts this to its own limit.
_BACKLOG = 4096
#: What stops the server in order.
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Limits are below this: what `Options` takes.
_LIMIT_END = 2**60


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


class _CommandError(Exception):
    """What was asked for cannot be done; the text is for standard error."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: those behind the command's name; None for those of the process.

    Returns:
        The exit status.
    """
    options = _make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except _CommandError as error:
        print(f"geventws: {_one_line(str(error))}", file=sys.stderr)
        return error.status
    except (terminal.TerminalError, WebSocketError) as error:
        # What a server says may stand in it.
        print(f"geventws: {terminal.escape(_one_line(str(error)))}", file=sys.stderr)
        for line in terminal.answer_lines(error):
            print(line, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # before the server took care of the signal
    return status


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="geventws", description="WebSockets for gevent: RFC 6455 and RFC 7692.", allow_abbrev=False
    )
    parser.add_argument(
        "--version", action="version", version=_version(), help="show what is installed and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    echo = commands.add_parser(
        "echo",
        help="serve WebSockets that send every message back",
        description="Serve WebSockets on any path. Every message goes back to its sender; on /broadcast it "
        "goes to everyone who is connected there. SIGTERM and SIGINT stop the server in order.",
        allow_abbrev=False,
    )
    echo.add_argument("--host", help=f"address to listen on (default: {_HOST})")
    echo.add_argument(
        "--port", type=_port, help=f"port to listen on, 0 for any that is free (default: {_PORT})"
    )
    echo.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead")
    echo.add_argument("--certfile", metavar="FILE", help="speak TLS, with this certificate chain (PEM)")
    echo.add_argument(
        "--keyfile", metavar="FILE", help="the certificate's key, where the chain does not hold it"
    )
    echo.add_argument(
        "--compression", action="store_true", help="compress messages where the client can (RFC 7692)"
    )
    echo.set_defaults(run=_echo)
    defaults = Options()
    for name, unit, default in (
        ("--max-message-size", "bytes of one message", defaults.max_message_size),
        ("--max-fragments", "frames of one message", defaults.max_fragments),
    ):
        echo.add_argument(
            name, type=_limit, default=default, metavar="N|none", help=f"{unit} (default: {default})"
        )
    connect = commands.add_parser(
        "connect",
        help="talk to a server",
        description="Connect to a server. At a terminal: type messages, see what comes back. Otherwise: send "
        "the lines of standard input, close after the last one, and print what comes until the close is "
        "answered.",
        allow_abbrev=False,
    )
    connect.set_defaults(run=terminal.run)
    terminal.add_arguments(connect, _limit)
    return parser


def _version() -> str:
    version = sys.modules[__package__].__version__
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"geventws {version} ({IMPLEMENTATION}), gevent {gevent.__version__}, {python}, deflate by {DEFLATE}"
    )


def _port(text: str) -> int:
    """Read a port number."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _limit(text: str) -> int | None:
    """Read a limit; None stands for an unlimited one."""
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal()) or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"a limit is a positive number or none, not {text!r}")
    # Its length first: Python refuses to read thousands of digits.
    if len(text) > 100 or int(text) >= _LIMIT_END:
        raise argparse.ArgumentTypeError(f"a limit is less than {_LIMIT_END}, or none to lift it")
    return int(text)


def _echo(options: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit status."""
    if options.keyfile is not None and options.certfile is None:
        raise _CommandError("--keyfile needs --certfile", status=2)
    if options.unix is not None and not (options.host is None and options.port is None):
        raise _CommandError("--unix takes the place of --host and --port; give one or the other", status=2)
    settings: dict[str, Any] = {
        "compression": True if options.compression else None,
        "max_message_size": options.max_message_size,
        "max_fragments": options.max_fragments,
    }
    if options.certfile is not None:
        settings["ssl_context"] = _make_context(options.certfile, options.keyfile)
    if options.unix is not None:
        with _unix_listener(options.unix) as listener:
            _serve(WebSocketServer(listener, _make_handler(), **settings))
    else:
        host = _HOST if options.host is None else options.host
        port = _PORT if options.port is None else options.port
        _serve(WebSocketServer((host, port), _make_handler(), backlog=_BACKLOG, **settings))
    return 0


def _make_handler() -> Any:
    """Return the handler of one server."""
    listeners: set[WebSocket] = set()

    def handle(ws: WebSocket) -> None:
        if ws.request.path != "/broadcast":
            for message in ws:
                ws.send(message)
            return
        listeners.add(ws)
        try:
            for message in ws:
                broadcast(listeners, message)
        finally:
            listeners.discard(ws)

    return handle


def _serve(server: WebSocketServer) -> None:
    """Start the server, announce it, and run it to its end."""
    try:
        server.start()
    except (OSError, UnicodeError) as error:
        raise _CommandError(f"cannot listen on {_netloc(*server.address)}: {_reason(error)}") from None
    # Handlers to which `serve_forever` goes back in the end: from then on until the interpreter is done, one
    # more signal has nothing left to stop. One that comes before the server listens to them is kept for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # In a greenlet: it runs when `serve_forever` waits, and from then on signals stop the server in order.
    gevent.spawn(_announce, _place(server))
    server.serve_forever()


def _announce(place: str) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        print(f"listening on {place}", flush=True)
    except OSError:
        # Nobody reads; that is no reason not to serve. What is buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _place(server: WebSocketServer) -> str:
    """Return the URI that `connect` reaches the server by; a Unix socket with TLS has none."""
    if isinstance(server.address, tuple):
        return f"{'wss' if server.ssl_enabled else 'ws'}://{_netloc(*server.address[:2])}"
    # POSIX lets two slashes at the beginning stand, and so does abspath.
    path = "/" + os.path.abspath(server.address).lstrip("/")
    return f"{path!r} with TLS" if server.ssl_enabled else unix_uri(path)


def _netloc(host: str, port: int) -> str:
    # RFC 3986 section 3.2.2: an IPv6 address stands in brackets.
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _make_context(certfile: str, keyfile: str | None) -> Any:
    """Return the SSLContext for a certificate and its key; the error says which file is the reason."""
    for path in filter(None, (certfile, keyfile)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise _CommandError(f"cannot read {path}: {_reason(error)}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ValueError) as error:
        files = f"{certfile} and {keyfile}" if keyfile else f"{certfile} (with the key in it)"
        raise _CommandError(f"cannot use {files} as certificate and key: {_reason(error)}") from None
    return context


@contextmanager
def _unix_listener(path: str) -> Iterator[Any]:
    """Listen on a Unix socket, and remove its file in the end."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        try:
            listener.bind(path)
            listener.listen(_BACKLOG)
            ours = os.lstat(path)
        except OSError as error:
            raise _CommandError(f"cannot listen on {path}: {_reason(error)}") from None
        try:
            yield listener
        finally:
            _remove_if(path, ours)
    finally:
        listener.close()


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that is gone; raise _CommandError if anything else is there."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # not there, or `bind` says what is wrong
    if not stat.S_ISSOCK(found.st_mode):
        raise _CommandError(f"cannot listen on {path}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        # Not waiting: a server that is too busy to accept is alive as well.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove_if(path, found)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise _CommandError(f"cannot listen on {path}: {_reason(error)}") from None
    raise _CommandError(f"cannot listen on {path}: another server is listening there")


def _remove_if(path: str, file: os.stat_result) -> None:
    """Remove `path` if it is still that file, and not one that another server put in its place."""
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _CommandError(f"cannot remove {path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what the system or OpenSSL says, without numbers and line numbers."""
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        return error.reason or "not in PEM format"
    if isinstance(error, OSError) and error.strerror:
        # gevent appends the address.
        return error.strerror.partition(": (")[0]
    return str(error)


def _one_line(text: str) -> str:
    return " ".join(text.split())
