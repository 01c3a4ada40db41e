"""The way to a server: its addresses, TCP, TLS; each failure with an exception that says what to do.

All of it happens under one deadline, whose owner is in connect.py; what is being waited for stands in a
`Progress`, for the message where the time is over.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import ssl
import time
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import gevent.ssl

from ..bare import BareSocket, gevent_socket
from ..exceptions import ConnectError, ResolveError, TLSError
from ..tlssocket import check_context, wrap_tls

if TYPE_CHECKING:
    from ..protocol.uri import URI

__all__ = [
    "TLS_ENDS",
    "Progress",
    "connect_tcp",
    "connect_unix",
    "default_context",
    "start_tls",
    "tls_reason",
]

#: What to do about an error of the system.
_ADVICE = {
    errno.ECONNREFUSED: "is the server running, and is that its port?",
    errno.EACCES: "this user may not; look at the permissions or at the firewall",
    errno.EPERM: "this user may not; look at the permissions or at the firewall",
    errno.EHOSTUNREACH: "is the host up, and does a route lead there?",
    errno.ENETUNREACH: "is the network up, and does a route lead there?",
    errno.EADDRNOTAVAIL: "no free local port, or a source_address that is not of this machine",
    errno.EMFILE: "this process has too many files open: close some, or raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open",
}

#: The same, of a Unix socket.
_UNIX_ADVICE = {
    **_ADVICE,
    errno.ECONNREFUSED: "is the server running, and is that the path of its socket?",
    errno.ENOENT: "is the server running, and is that the path of its socket?",
}

#: What OpenSSL calls the alerts of a server that wants a certificate of ours, or another one.
_CLIENT_CERTIFICATE = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)

#: What OpenSSL calls it when something else than TLS comes back.
_NO_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)


#: What OpenSSL raises where the other side ends TCP, or TLS.
TLS_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


class Progress:
    """How far the opening is, and how much time is left.

    Attributes:
        seconds: the time for everything, or None.
        phase: "resolve", "connect", "proxy", "tls" or "response".
        doing: the same in words, for a message.
    """

    __slots__ = ("_end", "doing", "phase", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds
        self.phase = ""
        self.doing = ""

    def enter(self, phase: str, doing: str) -> None:
        """Note what is being waited for from now on."""
        self.phase = phase
        self.doing = doing

    def share(self, parts: float) -> float | None:
        """Return the seconds that one of so many attempts gets of what is left; None for no limit."""
        return None if self._end is None else max(0.001, (self._end - time.monotonic()) / parts)


def reason_of(error: OSError, advices: dict[int, str] = _ADVICE) -> str:
    """Return what the system says, with advice where there is one."""
    text = error.strerror or str(error) or type(error).__name__
    advice = advices.get(error.errno or 0)
    return f"{text}: {advice}" if advice else text


def netloc(host: str, port: int) -> str:
    """Return host:port; an IPv6 address stands in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int, progress: Progress) -> list[tuple[int, Any]]:
    """Return the addresses of a host, each with its family, in the system's order of preference.

    Raises:
        ResolveError: if there is none.
    """
    version = _version_of(host)
    # gevent would ask another thread.
    if version == 4:
        return [(gevent.socket.AF_INET, (host, port))]
    if version == 6:
        return [(gevent.socket.AF_INET6, (host, port, 0, 0))]
    progress.enter(
        "resolve", f"no answer to the question for the addresses of {host!r}: is a name server there?"
    )
    try:
        found = gevent.socket.getaddrinfo(host, port, type=gevent.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResolveError(
            f"{host!r} has no address: {reason}: check the spelling and the name server",
            getattr(error, "errno", None),
        ) from error
    return [(family, address) for family, _, _, _, address in found]


@functools.lru_cache(maxsize=64)
def _version_of(host: str) -> int:
    """Return the version of the address that this is, 4 or 6, or 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def connect_tcp(
    host: str, port: int, progress: Progress, source_address: tuple[str, int] | None, phase: str = "connect"
) -> BareSocket:
    """Return a socket that is connected to the first of the host's addresses that answers.

    One that does not answer has its share of the time, and leaves the rest to those behind it.

    Raises:
        ResolveError: if the host has no address.
        ConnectError: if none of them can be connected to.
    """
    addresses = resolve(host, port, progress)
    failures: list[tuple[str, OSError]] = []
    for number, (family, address) in enumerate(addresses):
        where = netloc(*address[:2])
        progress.enter(phase, f"no answer from {where} to TCP: is the host up, or a firewall in between?")
        others = len(addresses) - number - 1
        try:
            return _connect(family, address, progress.share(others + 1) if others else None, source_address)
        except OSError as error:
            failures.append((where, error))
    where, first = failures[0]
    reasons = "; ".join(
        reason_of(error) if len(failures) == 1 else f"{name}: {reason_of(error)}" for name, error in failures
    )
    target = netloc(host, port)
    name = target if target == where or len(failures) > 1 else f"{target} ({where})"
    raise ConnectError(f"cannot connect to {name}: {reasons}", first.errno) from first


def _connect(
    family: int, address: Any, seconds: float | None, source_address: tuple[str, int] | None
) -> BareSocket:
    """Connect to one address, for `seconds` at the most."""
    sock = BareSocket(family)
    try:
        if source_address is not None:
            sock.bind(source_address)
        if seconds is None:
            sock.connect(address)
        else:
            with gevent.Timeout(seconds, TimeoutError(errno.ETIMEDOUT, "no answer")):
                sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_unix(path: str, progress: Progress) -> BareSocket:
    """Return a socket that is connected to a Unix socket.

    Raises:
        ConnectError: if that is not possible.
    """
    progress.enter("connect", f"the server behind {path!r} does not accept connections: is it overloaded?")
    sock: BareSocket | None = None
    try:
        sock = BareSocket(gevent.socket.AF_UNIX)
        while True:
            try:
                sock.connect(os.fsencode(path))
                return sock
            except BlockingIOError:
                # Its backlog is full (unix(7): EAGAIN), and no event will tell when that is over.
                gevent.sleep(0.01)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConnectError(
            f"cannot connect to {path!r}: {reason_of(error, _UNIX_ADVICE)}", error.errno
        ) from error
    except BaseException:
        if sock is not None:
            sock.close()
        raise


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return the context for those who bring none: the system's authorities, everything verified.

    Made once: to read the authorities takes longer than all the rest of a connection.

    Raises:
        TypeError: contexts of this process cannot be used; see `check_context`.
    """
    context = gevent.ssl.create_default_context()
    # Another library may have put a class of its own in the place of the standard library's.
    check_context(context)
    context.set_alpn_protocols(["http/1.1"])
    return context  # type: ignore[no-any-return]


def start_tls(bare: BareSocket, uri: URI, context: ssl.SSLContext, hostname: str, progress: Progress) -> Any:
    """Return the TLS socket made of `bare`, after its handshake; it is closed where that fails.

    Raises:
        TLSError: if there is no TLS, or the server's certificate is not good.
    """
    where = netloc(uri.host, uri.port)
    progress.enter("tls", f"no answer from {where} to TLS: does that port speak TLS? Without it: ws://")
    sock: Any = bare
    try:
        sock = gevent_socket(bare)
        sock = wrap_tls(context, sock, hostname)
        sock.do_handshake()
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise TLSError(
            f"the certificate of {where} is not good for {hostname!r}: {error.verify_message}; "
            "for a name or an authority of your own give server_hostname=... or ssl_context=...",
            error.errno,
            True,
        ) from error
    except (OSError, ValueError) as error:
        sock.close()
        raise TLSError(f"no TLS with {where}: {tls_reason(error)}", getattr(error, "errno", None)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def tls_reason(error: OSError | ValueError) -> str:
    """Say what went wrong in a TLS handshake."""
    if isinstance(error, ssl.SSLError):
        if error.reason in _NO_TLS:
            return f"that port does not speak TLS ({error.reason}); without it: ws://"
        if error.reason in _CLIENT_CERTIFICATE:
            return (
                f"{error.reason}: the server wants a certificate of yours, or another one: "
                "give ssl_context=... with load_cert_chain()"
            )
        if not isinstance(error, TLS_ENDS):
            # That is also how TLS 1.2 asks for a certificate of ours.
            more = (
                "; one of yours: load_cert_chain()" if error.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE" else ""
            )
            return (
                f"{error.reason or error}: look at the versions, ciphers and certificates of both sides{more}"
            )
    if isinstance(error, ValueError):
        return str(error)
    return "the server ended TCP instead of answering; does that port speak TLS? Without it: ws://"
