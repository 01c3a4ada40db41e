"""Proxies: which one, and the way through it: CONNECT (RFC 9110 section 9.3.6), SOCKS5 (RFC 1928, 1929)."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import os
import urllib.parse
from typing import TYPE_CHECKING, Any

from ..exceptions import ConnectError, InvalidHandshake, ProxyError
from ..protocol.headers import check_field
from ..protocol.http import Response, ResponseParser
from ..protocol.uri import split_host
from .dial import netloc, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..options import Options
    from ..protocol.uri import URI
    from .dial import Progress

__all__ = ["Proxy", "is_final_status", "open_tunnel", "parse_proxy", "proxy_from_environment"]

_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}

#: Statuses below 500 that another attempt may not get: time-outs, "too early", "too many requests".
_PASSING = frozenset({408, 425, 429})
#: Statuses from 500 on that every attempt gets: "not implemented", "version not supported".
_LASTING = frozenset({501, 505})

#: RFC 1928 section 6.
_SOCKS_REPLIES = {
    1: "it failed in general",
    2: "its rules do not allow this connection",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the server refuses the connection: is it running, and is that its port?",
    6: "the time to live expired",
    7: "it cannot do CONNECT",
    8: "it does not know this kind of address",
}


def is_final_status(status: int) -> bool:
    """Tell whether trying again is of no use where a server or a proxy has refused with this status."""
    return status in _LASTING if status >= 500 else status not in _PASSING


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        scheme: "http", "socks5" (we resolve the server's name) or "socks5h" (the proxy does).
        host, port: where it is.
        userinfo: user name and password, or None.
    """

    scheme: str
    host: str
    port: int
    userinfo: tuple[str, str] | None = dataclasses.field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{netloc(self.host, self.port)}"


def parse_proxy(text: str) -> Proxy:
    """Read the address of a proxy: "http://[user:password@]host[:port]", "socks5://...", "socks5h://...".

    Without a scheme it is one for HTTP, as in the environment of other programs.

    Raises:
        ValueError: if it is none; the message does not repeat the password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    scheme = scheme.lower()
    authority, _, path = rest.partition("/")
    # "http:/h" is none either: that would be a host called "http", and something behind it.
    if scheme not in _PORTS or (not separator and path and authority.endswith(":")):
        # What is no scheme may be a piece of a password.
        other = f", not {scheme}://" if separator and scheme.replace("+", "").isalnum() else ""
        raise ValueError(f"a proxy is http://, socks5:// or socks5h://{other}")
    if "@" in path:
        # What was taken for the host may be a piece of a password.
        raise ValueError("a proxy has no valid host and port: write / and @ in a password as %2F and %40")
    userinfo, at, authority = authority.rpartition("@")
    credentials = None
    if at:
        user, _, password = userinfo.partition(":")
        credentials = urllib.parse.unquote(user), urllib.parse.unquote(password)
        try:
            longest = max(len(part.encode()) for part in credentials)
        except UnicodeEncodeError:
            # An environment variable has other bytes as lone surrogates; the error would repeat it all.
            raise ValueError("a proxy's user name and password are UTF-8: write other bytes as %XX") from None
        # RFC 7617 section 2, RFC 1929 section 2.
        if ":" in credentials[0] or longest > 255:
            raise ValueError(
                "a proxy's user name has no colon, and neither it nor the password more than 255 bytes"
            )
    try:
        host, port = split_host(authority)
    except ValueError as error:
        raise ValueError(f"a proxy has no valid host and port: {error}") from None
    if port == 0:
        raise ValueError("a proxy has no valid host and port: port 0 cannot be connected to")
    return Proxy(scheme, host, port or _PORTS[scheme], credentials)


def proxy_from_environment(uri: URI, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy that the environment names for a server, or None.

    `wss_proxy`, `https_proxy` and `all_proxy` count for wss:, `ws_proxy`, `http_proxy` and `all_proxy` for
    ws:, in small letters first. `no_proxy` lists those to go to directly: hosts with all below them,
    addresses, networks such as 10.0.0.0/8, each with a port or without, or "*".

    Raises:
        ProxyError: if that is no proxy we can use.
    """
    environ = os.environ if environ is None else environ
    for name in (
        ("wss_proxy", "https_proxy", "all_proxy") if uri.secure else ("ws_proxy", "http_proxy", "all_proxy")
    ):
        value = environ.get(name)
        # A CGI script has HTTP_PROXY from the request's field "Proxy": whoever sends that is not to choose.
        if not value and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
            name = name.upper()
            value = environ.get(name)
        if not value:
            continue
        if _is_excepted(uri, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
            return None
        try:
            return parse_proxy(value.strip())
        except ValueError as error:
            raise ProxyError(
                f"the environment variable {name}: {error}; correct it, or go without with proxy=None",
                refused=True,
            ) from None
    return None


def _is_excepted(uri: URI, no_proxy: str) -> bool:
    """Tell whether `no_proxy` names this server."""
    try:
        address = ipaddress.ip_address(uri.host)
    except ValueError:
        address = None
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                pass
            else:
                continue
        name, port = entry, None
        try:
            name, port = split_host(entry.removeprefix("*").removeprefix("."))
        except ValueError:
            continue
        below = address is None and uri.host.endswith(f".{name}")
        if (port is None or port == uri.port) and (uri.host == name or below):
            return True
    return False


def open_tunnel(sock: Any, proxy: Proxy, uri: URI, options: Options, progress: Progress) -> None:
    """Have the proxy at the other end of `sock` connect us to the server.

    Raises:
        ProxyError: if it does not.
    """
    progress.enter("proxy", f"no answer from the proxy {proxy}: does it speak {proxy.scheme}?")
    try:
        if proxy.scheme == "http":
            _connect_http(sock, proxy, uri, options)
        else:
            _connect_socks(sock, proxy, uri, progress)
    except ConnectError:
        raise
    except OSError as error:
        raise ProxyError(
            f"the proxy {proxy} ended the connection: {error.strerror or error}", error.errno
        ) from error


class _TunnelParser(ResponseParser):
    """Reads the answer to CONNECT."""

    __slots__ = ()

    def _has_body(self, status: int) -> bool:
        # RFC 9110 section 9.3.6: behind the head of a 2xx comes what the server sends.
        return not 200 <= status < 300


def _connect_http(sock: Any, proxy: Proxy, uri: URI, options: Options) -> None:
    target = netloc(uri.host, uri.port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.userinfo is not None:
        # RFC 7617 section 2.1.
        value = "Basic " + base64.b64encode(":".join(proxy.userinfo).encode()).decode("ascii")
        check_field("Proxy-Authorization", value)
        lines.append(f"Proxy-Authorization: {value}")
    # RFC 9931: nothing for the server is sent before the proxy has agreed.
    sock.sendall("\r\n".join([*lines, "\r\n"]).encode("ascii"))
    parser = _TunnelParser(
        max_line=options.max_line, max_headers=options.max_headers, max_head=options.max_head
    )
    response: Response | None = None
    try:
        while response is None:
            data = sock.recv(16 * 1024)
            response = parser.receive_data(data) if data else parser.receive_eof()
            # What a refusal says beyond its head is not waited for.
            response = response or parser.response
    except InvalidHandshake as error:
        raise ProxyError(f"the proxy {proxy} does not speak HTTP: {error}") from error
    if not 200 <= response.status < 300:
        unknown = "it does not know this user name and password"
        wanted = "it wants a user name and password: http://user:password@..."
        advice = {
            # tinyproxy's answer to credentials that are wrong.
            401: unknown,
            403: "its rules do not allow this server or port",
            405: "it knows no CONNECT: is it a proxy?",
            407: wanted if proxy.userinfo is None else unknown,
            502: "it cannot reach the server",
            503: "it cannot reach the server, or has too much to do",
            504: "the server does not answer it",
        }.get(response.status, "look at its log")
        raise ProxyError(
            f"the proxy {proxy} answered {response.status} {response.reason!r} to CONNECT {target}: {advice}",
            None,
            response,
            is_final_status(response.status),
        )
    if parser.leftover:
        raise ProxyError(
            f"the proxy {proxy} sent {len(parser.leftover)} bytes where only the server may speak"
        )


def _read_exactly(sock: Any, size: int, proxy: Proxy) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ProxyError(f"the proxy {proxy} ended the connection: does it speak SOCKS5?")
        data += more
    return data


def _connect_socks(sock: Any, proxy: Proxy, uri: URI, progress: Progress) -> None:
    # The address first: where there is none, nobody need be bothered.
    address = _socks_address(proxy, uri, progress)
    progress.enter("proxy", f"no answer from the proxy {proxy}: does it speak {proxy.scheme}?")
    # RFC 1928 section 3: the methods that we can do: 0 is none, 2 is user name and password.
    methods = b"\x00" if proxy.userinfo is None else b"\x00\x02"
    sock.sendall(b"\x05" + bytes([len(methods)]) + methods)
    version, method = _read_exactly(sock, 2, proxy)
    if version != 5:
        raise ProxyError(
            f"the proxy {proxy} does not speak SOCKS5: its answer begins with byte 0x{version:02x}"
        )
    if method == 2 and proxy.userinfo is not None:
        # RFC 1929 section 2.
        parts = [part.encode() for part in proxy.userinfo]
        sock.sendall(b"\x01" + b"".join(bytes([len(part)]) + part for part in parts))
        if _read_exactly(sock, 2, proxy)[1] != 0:
            raise ProxyError(f"the proxy {proxy} does not know this user name and password", refused=True)
    elif method != 0:
        wants = (
            "a user name and password: socks5://user:password@..."
            if proxy.userinfo is None
            else "another method"
        )
        raise ProxyError(f"the proxy {proxy} wants {wants}", refused=True)
    # RFC 1928 section 4.
    sock.sendall(b"\x05\x01\x00" + address + uri.port.to_bytes(2, "big"))
    version, reply, _, kind = _read_exactly(sock, 4, proxy)
    if version != 5 or kind not in (1, 3, 4):
        raise ProxyError(
            f"the proxy {proxy} does not speak SOCKS5: its reply has version {version}, address type {kind}"
        )
    # Section 6: the address that it uses for us, which nobody needs.
    size = {1: 4, 4: 16}.get(kind) or _read_exactly(sock, 1, proxy)[0]
    _read_exactly(sock, size + 2, proxy)
    if reply != 0:
        raise ProxyError(
            f"the proxy {proxy} cannot connect to {netloc(uri.host, uri.port)}: "
            f"{_SOCKS_REPLIES.get(reply, f'reply {reply}')}",
            refused=reply in (2, 7),
        )


def _socks_address(proxy: Proxy, uri: URI, progress: Progress) -> bytes:
    """Return the server's address as RFC 1928 section 5 writes it."""
    host = uri.host
    if proxy.scheme == "socks5":
        host = resolve(host, uri.port, progress)[0][1][0]
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ProxyError(
                f"SOCKS5 takes names of up to 255 bytes, not {len(name)}", refused=True
            ) from None
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if len(packed) == 4 else b"\x04") + packed
