"""What every face that serves has in common: agree on a connection, run its handler to the end.

And what is done to a socket before and instead of that: TLS, and the answer that refuses.
"""

from __future__ import annotations

import _socket
import functools
import logging
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import gevent.ssl

from .agreement import Agreement, agree
from .exceptions import ConnectionClosed
from .tlssocket import check_context

if TYPE_CHECKING:
    from .options import Options
    from .websocket import WebSocket

__all__ = [
    "REFUSAL_LINES",
    "TCP_FAMILIES",
    "TLS_NAMES",
    "Agreement",
    "Lines",
    "Throttle",
    "agree",
    "make_tls_context",
    "prepare_socket",
    "run_handler",
    "send_last",
    "shorten",
    "socket_options",
    "wake_reader",
]

logger = logging.getLogger("geventws")

#: What StreamServer takes for TLS, besides `ssl_context`.
TLS_NAMES = frozenset({"ca_certs", "cert_reqs", "certfile", "ciphers", "keyfile"})

#: Seconds and bytes that the rest of a refused request is read for, so that the answer arrives.
_LINGER_SECONDS = 2
_LINGER_BYTES = 256 * 1024

_CHUNK = 64 * 1024

#: Lines about refused requests in a second; a flood of those must not become one of the log.
REFUSAL_LINES = 50

#: Characters of what a peer has chosen that stand in a line of the log.
_MOST_SHOWN = 500

#: Families of sockets that are TCP's.
TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def socket_options(options: Options) -> tuple[tuple[int, int, int], ...]:
    """Return what is set on a TCP connection, as arguments of `setsockopt`."""
    return _socket_options(options.ping_interval, options.ping_timeout, options.write_timeout)


@functools.lru_cache(maxsize=16)
def _socket_options(
    interval: float | None, timeout: float | None, write_timeout: float | None
) -> tuple[tuple[int, int, int], ...]:
    """Return it for these three options.

    While the application's full queue keeps the peer's bytes from being read, Pongs are not seen and
    the keepalive holds nothing against it. A dead peer is then found by the system, in the time that
    the keepalive would have taken.
    """
    # A frame goes out when it is written; corking is done here, not by the kernel.
    wanted = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if interval is None or timeout is None or not hasattr(socket, "TCP_KEEPIDLE"):
        return tuple(wanted)
    wanted.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
    wanted.append((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _whole_seconds(interval)))
    wanted.append((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _whole_seconds(timeout / 4)))
    if write_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        # It counts for a peer that lives and does not read too, which is what write_timeout is about.
        seconds = max(interval + timeout, write_timeout)
        wanted.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _whole_seconds(seconds) * 1000))
    return tuple(wanted)


def prepare_socket(sock: Any, options: Options) -> None:
    """Set what a TCP connection needs; a Unix socket needs nothing."""
    if sock.family in TCP_FAMILIES:
        for option in socket_options(options):
            sock.setsockopt(*option)


def _whole_seconds(seconds: float) -> int:
    """Round up to what the system takes for its keepalive."""
    return min(math.ceil(seconds), 32767)


def run_handler(ws: WebSocket, handler: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Run a handler in this greenlet until it is done, and close its WebSocket.

    A handler that returns closes with 1000, one that raises with 1011 and a logged traceback.
    `ConnectionClosed` leaving it is the normal end, if it was this connection that closed. A killed
    handler closes with 1001. Only KeyboardInterrupt goes further than this: even SystemExit ends
    nothing but the handler.

    TCP is over when this returns or raises.
    """
    code, reason = 1011, ""
    try:
        if arguments:
            handler(ws, **arguments)
        else:
            # Without another C frame, which the greenlet would keep while the handler waits.
            handler(ws)
        code = 1000
    except gevent.GreenletExit:
        code = 1001
    except KeyboardInterrupt:
        # The process is about to end: one turn of the loop, in which the Close leaves, but no answer.
        try:
            ws.begin_close(code, reason)
            ws.wait_closed(0)
        finally:
            ws.abort()
        raise
    except BaseException as error:
        if not isinstance(error, ConnectionClosed) or not ws.closed:
            reason = "internal error"
            logger.exception("connection %d: the handler of %r raised", ws.id, shorten(ws.request.path))
    try:
        ws.begin_close(code, reason)
        ws.wait_closed()
    except (gevent.GreenletExit, gevent.Timeout):
        # Killed while it closes, or by a Timeout that the handler has left running.
        pass
    finally:
        # The socket's owner closes it next: no watcher may outlive that.
        ws.abort()


def send_last(sock: Any, data: bytes, timeout: float | None, *, linger: bool = True) -> None:
    """Send an answer, and end and close the connection so that it arrives whatever else was sent here.

    Args:
        sock: a socket of gevent, plain or TLS.
        data: the answer.
        timeout: seconds for each 64 KiB of it; None for no limit.
        linger: wait for the peer's end; without it, bytes that were sent here may destroy the answer.
    """
    try:
        sock.settimeout(timeout)
        for start in range(0, len(data), _CHUNK):
            sock.sendall(data[start : start + _CHUNK])
        if hasattr(sock, "unwrap"):
            sock.settimeout(0)
            try:
                # Sends close_notify (RFC 8446 section 6.1); the peer's is not waited for.
                sock.unwrap()
            except (OSError, ValueError):
                pass
        sock.settimeout(_LINGER_SECONDS)
        sock.shutdown(socket.SHUT_WR)
        if not linger:
            return
        # RFC 9112 section 9.6: bytes that nobody read would make the kernel reset TCP, and the reset
        # destroy the answer. What comes is not looked at: it is no other request.
        with gevent.Timeout(_LINGER_SECONDS, False):
            left = _LINGER_BYTES
            while left > 0:
                count = len(sock.recv(_CHUNK))
                if count == 0:
                    break
                left -= count
    except OSError:
        pass
    finally:
        sock.close()


def wake_reader(sock: Any) -> None:
    """Let a greenlet that waits for bytes from this socket go on with an OSError; answers still leave."""
    try:
        if isinstance(sock, _socket.socket):
            sock.shutdown(socket.SHUT_RD)
            return
        # Not the method of an SSLSocket: that forgets how to encrypt.
        gevent.socket.socket.shutdown(sock, socket.SHUT_RD)
    except OSError:
        pass


def make_tls_context(context: Any, arguments: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Return the SSLContext to serve with, or None.

    Args:
        context: an SSLContext of gevent or of the standard library, or None.
        arguments: instead of it, some of `TLS_NAMES`.

    Raises:
        TypeError, ValueError: for arguments that do not go together.
        OSError, ssl.SSLError: if certificate or key cannot be used; the message names the files.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if context is not None:
        if given:
            raise TypeError(f"give ssl_context or {', '.join(sorted(given))}, not both")
        check_context(context)
        if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise ValueError("ssl_context is for clients (PROTOCOL_TLS_CLIENT): a server cannot use it")
        return context  # type: ignore[no-any-return]
    if not given:
        return None
    certfile, keyfile = given.get("certfile"), given.get("keyfile")
    if certfile is None:
        raise TypeError("TLS needs certfile (and keyfile), or ssl_context")
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(
        context.load_cert_chain,
        f"certificate {certfile!r} and key {keyfile or certfile!r}",
        certfile,
        keyfile,
    )
    if "ca_certs" in given:
        _load(context.load_verify_locations, f"ca_certs {given['ca_certs']!r}", given["ca_certs"])
    elif given.get("cert_reqs", ssl.CERT_NONE) != ssl.CERT_NONE:
        raise ValueError("cert_reqs asks for client certificates: ca_certs must say whose are good")
    if "cert_reqs" in given:
        context.verify_mode = given["cert_reqs"]
    if "ciphers" in given:
        context.set_ciphers(given["ciphers"])
    return context  # type: ignore[no-any-return]


def _load(load: Callable[..., Any], what: str, *files: Any) -> None:
    """Load files into a context; OpenSSL's own errors do not name them."""
    try:
        load(*files)
    except OSError as error:
        error.strerror = f"cannot use {what}: {error.strerror or error}"
        raise


def shorten(text: str) -> str:
    """Return what is shown in the log of a text that a peer has made as long as it may."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text)} characters)"


class Throttle:
    """Lets one log line through in some seconds, and counts the others."""

    __slots__ = ("_next", "_seconds", "_suppressed")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._suppressed = 0

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Log, unless that was done a short time ago."""
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return
        self._next = now + self._seconds
        if self._suppressed:
            message += f" ({self._suppressed} times more since the last line)"
            self._suppressed = 0
        logger.log(level, message, *arguments)


class Lines:
    """Lets so many log lines through in a second, not too long ones, and counts the others."""

    __slots__ = ("_count", "_limit", "_logger", "_second", "_suppressed")

    def __init__(self, logger: logging.Logger, limit: int) -> None:
        self._logger = logger
        self._limit = limit
        self._second = 0
        self._count = 0
        self._suppressed = 0

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Log, unless there were too many in this second."""
        if not self._logger.isEnabledFor(level):
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._count = 0
        self._count += 1
        if self._count > self._limit:
            self._suppressed += 1
            return
        if self._suppressed:
            message += f" (and {self._suppressed} lines were left out)"
            self._suppressed = 0
        short = [shorten(argument) if isinstance(argument, str) else argument for argument in arguments]
        self._logger.log(level, message, *short)
