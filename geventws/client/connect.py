"""`connect`: from a URI to an open WebSocket (RFC 6455 section 4.1).

One deadline covers everything: names, TCP, proxy, TLS, redirects and the response. Whatever fails leaves no
descriptor behind.
"""

from __future__ import annotations

import dataclasses
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import gevent

from ..bare import BareSocket
from ..exceptions import (
    ConnectError,
    HeadTooBig,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    OpenTimeout,
    ProxyError,
    TLSError,
)
from ..protocol.http import Response, ResponseParser
from ..protocol.uri import URI, parse_uri, show_uri, unix_uri
from ..serving import prepare_socket
from ..websocket import WebSocket
from .asking import Asking
from .dial import TLS_ENDS, Progress, connect_tcp, connect_unix, default_context, start_tls, tls_reason
from .proxy import Proxy, open_tunnel, proxy_from_environment
from .settings import Settings, make_settings

if TYPE_CHECKING:
    from ..protocol.headers import Headers

__all__ = ["connect", "open_websocket"]

#: RFC 9110 section 15.4; 300, 304 and 305 name no other place to ask at.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Seconds that the body of a refusal is waited for.
_BODY_SECONDS = 2.0

_RECEIVE_SIZE = 16 * 1024

#: What to do about a status.
_ADVICE = {
    400: "it did not like the request; its answer may say why",
    401: "give auth=(user, password) or auth=token",
    403: "it does not allow this; it may ask for credentials, or for another origin=...",
    404: "look at the path of the URI",
    405: "look at the path of the URI: there is something else",
    407: "a proxy wants credentials: proxy='http://user:password@...'",
    426: "it speaks another version of the protocol than 13, or it is asked for something else",
    429: "it wants fewer connections; try again later",
    431: "it wants fewer or smaller header fields",
    500: "it has failed; its log may say why",
    502: "a proxy in front of it cannot reach it",
    503: "it has too much to do, or is stopping; try again later",
    504: "a proxy in front of it got no answer",
}


def connect(
    uri: str,
    *,
    headers: Headers | Iterable[tuple[str, str]] | Mapping[str, str] = (),
    cookies: Mapping[str, str] | None = None,
    auth: tuple[str, str] | str | None = None,
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    proxy: str | Literal[True] | None = True,
    source_address: tuple[str, int] | None = None,
    max_redirects: int = 5,
    **options: Any,
) -> WebSocket:
    """Open a WebSocket to a server, and return it when the opening handshake is done.

    Example::

        with connect("wss://example.com/chat") as ws:
            ws.send("Hello")
            print(ws.receive(timeout=10))

    It is to be closed, best by `with`. All addresses of the host are tried in turn, and all of it is
    done within `open_timeout`. Redirects are followed to other servers too, but never from wss: to ws:,
    and without `auth`, `cookies`, Authorization, Cookie and Host where the server is another.

    Args:
        uri: "ws://host[:port][/path][?query]", "wss://...", or "ws+unix:/path/to/socket[:/path][?query]".
            User name and password in it are sent as Basic authentication.
        headers: further fields of the request, (name, value) pairs or a mapping.
        cookies: names and values of cookies to send.
        auth: (user name, password) for Basic authentication (RFC 7617), or a str: a bearer token (RFC 6750).
        origin: the Origin, which servers that are made for browsers may want.
        ssl_context: for wss:, of gevent or of the standard library. Default: the system's authorities
            are trusted, certificate and host name are verified.
        server_hostname: the name to ask for (SNI) and to verify instead of the URI's host.
        proxy: "http://[user:password@]host[:port]", "socks5://..." or "socks5h://..." (the proxy resolves
            the name); True for what the environment says (`https_proxy`, `http_proxy`, `all_proxy`,
            `no_proxy`); None for no proxy. Default True.
        source_address: (address, port) to connect from, of this machine; port 0 for any.
        max_redirects: how many are followed; 0 for none. Default 5.
        options: those of `Options` that make sense for a client: `open_timeout`, `close_timeout`,
            `ping_interval`, `ping_timeout`, `write_timeout`, `max_message_size`, `compression`,
            `subprotocols` (a list), ...

    Returns:
        The open `WebSocket`. Its `request` is what was asked, its `response` the server's answer.

    Raises:
        InvalidURI: for a URI that is none.
        ResolveError, ConnectError, ProxyError, TLSError: if the server cannot be reached; OSErrors too.
        OpenTimeout: if it took longer than `open_timeout`; a TimeoutError too.
        InvalidStatus: if the server answered something else than 101: `error.response` has its head and
            up to 64 KiB of its body. `InvalidRedirect` is one.
        InvalidHandshake: for any other answer that does not open this WebSocket.
        TypeError, ValueError: for arguments and options that are not possible.
    """
    target = parse_uri(uri)
    settings = make_settings(
        headers=headers,
        cookies=cookies,
        auth=auth,
        origin=origin,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        proxy=proxy,
        source_address=source_address,
        max_redirects=max_redirects,
        **options,
    )
    return open_websocket(target, settings)


def open_websocket(uri: URI, settings: Settings) -> WebSocket:
    """Open a WebSocket with settings that are checked; as `connect`."""
    timeout = settings.options.open_timeout
    progress = Progress(timeout)
    timer = gevent.Timeout.start_new(timeout)
    try:
        redirects = 0
        while True:
            opened = _try(uri, settings, progress)
            if isinstance(opened, WebSocket):
                return opened
            redirects += 1
            target = _redirect_target(uri, opened)
            if redirects > settings.max_redirects:
                raise InvalidRedirect(
                    f"{show(uri)} redirects once more, to {show(target)}, after {settings.max_redirects} "
                    "redirects (max_redirects): do they go round in a circle?",
                    opened,
                )
            if origin_of(target) != origin_of(uri):
                settings = settings.without_credentials(uri)
            uri = target
    except gevent.Timeout as expired:
        if expired is not timer:
            raise
        raise OpenTimeout(
            f"{show(uri)} did not open within {timeout:g} seconds (open_timeout): {progress.doing}",
            progress.phase,
        ) from None
    finally:
        timer.close()


def show(uri: URI) -> str:
    """Return a URI for messages: without credentials, and without a query, which may hold some."""
    if uri.unix_path is not None:
        return f"{unix_uri(uri.unix_path)}:{uri.path}"
    return f"{'wss' if uri.secure else 'ws'}://{uri.authority}{uri.path}"


def origin_of(uri: URI) -> tuple[Any, ...]:
    """Return what makes two URIs ask the same server (RFC 6454 section 4)."""
    return uri.secure, uri.host, uri.port, uri.unix_path


def _try(uri: URI, settings: Settings, progress: Progress) -> WebSocket | Response:
    """Ask one server; return the WebSocket, or a redirect that is to be followed."""
    options = settings.options
    # Before there is a connection: what cannot be sent need not be.
    asking = Asking(uri, options, headers=settings.headers, origin=settings.origin)
    sock, address = _dial(uri, settings, progress)
    try:
        progress.enter(
            "response", "it was connected to, but gave no complete response: is it a WebSocket server?"
        )
        parser = ResponseParser(
            max_line=options.max_line, max_headers=options.max_headers, max_head=options.max_head
        )
        try:
            # Whoever connects many at once sends their requests in one turn of the loop, and the server is
            # woken once for all of them (`benchmarks/`, row "client-connect").
            gevent.sleep(0)
            sock.sendall(asking.request())
            response = _receive_response(sock, parser, progress)
            if response.status in _REDIRECTS and settings.max_redirects and "location" in response.headers:
                sock.close()
                return response
            asking.check(response)
        except InvalidHandshake as error:
            _explain(error, uri, settings.dropped_by)
            raise
        except OSError as error:
            if isinstance(error, ssl.SSLError) and not isinstance(error, TLS_ENDS):
                # RFC 8446 section 2: a server looks at our certificate when our handshake is done.
                raise TLSError(f"no TLS with {show(uri)}: {tls_reason(error)}", error.errno) from error
            advice = "is there a WebSocket server on that port"
            raise ConnectError(
                f"{show(uri)} ended the connection in the opening handshake: {error.strerror or error}: "
                + (f"{advice}?" if uri.secure else f"{advice}, and is it one without TLS? With it: wss://"),
                error.errno,
            ) from error
        bare = isinstance(sock, BareSocket)
        return asking.open(
            sock.socket if bare else sock, response, address=address, early_data=parser.leftover
        )
    except BaseException:
        sock.close()
        raise


def _dial(uri: URI, settings: Settings, progress: Progress) -> tuple[Any, Any]:
    """Return a socket at whose other end is the server, and the address it was connected to."""
    # First: it cannot be made where no descriptor is left.
    context = settings.ssl_context or (default_context() if uri.secure else None)
    if uri.unix_path is not None:
        sock = connect_unix(uri.unix_path, progress)
        return sock, sock.address
    proxy = proxy_from_environment(uri) if settings.proxy is True else settings.proxy
    if isinstance(proxy, Proxy):
        try:
            sock = connect_tcp(proxy.host, proxy.port, progress, settings.source_address, "proxy")
        except ConnectError as error:
            raise ProxyError(f"the proxy {proxy} cannot be reached: {error}", error.errno) from error
    else:
        sock = connect_tcp(uri.host, uri.port, progress, settings.source_address)
    try:
        prepare_socket(sock, settings.options)
        if isinstance(proxy, Proxy):
            open_tunnel(sock, proxy, uri, settings.options, progress)
    except BaseException:
        sock.close()
        raise
    address = sock.address
    if not uri.secure:
        return sock, address
    assert context is not None
    return start_tls(sock, uri, context, settings.server_hostname or uri.host, progress), address


def _receive_response(sock: Any, parser: ResponseParser, progress: Progress) -> Response:
    """Read the response, with what there is of a body where it is a refusal."""
    response = None
    while response is None:
        data = sock.recv(_RECEIVE_SIZE)
        try:
            response = parser.receive_data(data) if data else parser.receive_eof()
        except InvalidHandshake:
            # A body that is malformed is none; the refusal is what counts.
            if parser.response is None:
                raise
            return parser.response
        if response is None and parser.response is not None:
            # A redirect's is of no use.
            if parser.response.status in _REDIRECTS:
                return parser.response
            response = _receive_body(sock, parser, progress)
    return response


def _receive_body(sock: Any, parser: ResponseParser, progress: Progress) -> Response:
    """Read the body of a refusal for a short time: the refusal is what counts."""
    response, head = None, parser.response
    assert head is not None
    seconds = progress.share(2)
    timer = gevent.Timeout.start_new(_BODY_SECONDS if seconds is None else min(seconds, _BODY_SECONDS))
    try:
        while response is None:
            data = sock.recv(_RECEIVE_SIZE)
            response = parser.receive_data(data) if data else parser.receive_eof()
    except gevent.Timeout as expired:
        if expired is not timer:
            raise
    except (OSError, InvalidHandshake):
        # Cut off, or malformed.
        pass
    finally:
        timer.close()
    return response or parser.receive_eof() or head


def _redirect_target(uri: URI, response: Response) -> URI:
    """Return where a redirect leads (RFC 9110 section 10.2.2).

    Raises:
        InvalidRedirect: if we do not go there.
    """
    location = response.headers["Location"]
    try:
        # A field is read as latin-1; who sends other scripts sends UTF-8.
        location = location.encode("latin-1").decode("utf-8")
        base = f"{'https' if uri.secure else 'http'}://{uri.authority}{uri.resource_name}"
        # RFC 9110 section 10.2.2: relative to the target URI; its fragment is not for us.
        scheme, colon, rest = _join(base, location).partition("#")[0].partition(":")
        scheme = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme.lower())
        if scheme not in ("ws", "wss"):
            raise ValueError(f"its scheme is {scheme!r}, not wss, ws, https or http")
        # Nobody but our caller gives us credentials.
        target = dataclasses.replace(parse_uri(f"{scheme}{colon}{rest}"), userinfo=None)
    except (ValueError, InvalidURI) as error:
        raise InvalidRedirect(f"{show(uri)} redirects to {show_uri(location)!r}: {error}", response) from None
    if uri.unix_path is not None:
        if origin_of(target) != (False, uri.host, uri.port, None):
            raise InvalidRedirect(
                f"{show(uri)} redirects to {show(target)}: from a Unix socket we do not go to a network",
                response,
            )
        return dataclasses.replace(uri, path=target.path, query=target.query)
    if uri.secure and not target.secure:
        raise InvalidRedirect(
            f"{show(uri)} redirects to {show(target)}, which is not encrypted: "
            "if that is what you want, connect to it",
            response,
        )
    if origin_of(target) == origin_of(uri):
        target = dataclasses.replace(target, userinfo=uri.userinfo)
    return target


def _join(base: str, location: str) -> str:
    """Return where `location` leads from `base`.

    Raises:
        ValueError: if that is nowhere; what the standard library says may repeat credentials.
    """
    try:
        return urllib.parse.urljoin(base, location)
    except ValueError:
        raise ValueError("it is malformed") from None


def _explain(error: InvalidHandshake, uri: URI, dropped_by: URI | None) -> None:
    """Say in an error of the handshake where it was, and what to do about it."""
    advice = ""
    if isinstance(error, InvalidStatus):
        status = error.response.status
        advice = _ADVICE.get(status, "")
        if status == 401 and dropped_by is not None:
            advice = (
                f"{show(dropped_by)} redirects to it, and what was for that server was not sent to another: "
                "if the credentials are for this one, connect to it"
            )
        if status in _REDIRECTS:
            location = error.response.headers.get("Location", "nowhere")
            advice = f"it redirects to {show_uri(location)!r}"
        elif not advice and 200 <= status < 300:
            advice = "there is an ordinary page; look at the path of the URI"
    elif isinstance(error, HeadTooBig):
        advice = "if that may be so, raise max_line, max_headers or max_head"
    elif isinstance(error, InvalidMessage):
        advice = "is there a WebSocket server on that port?"
        if not uri.secure:
            advice = "is there a WebSocket server on that port, and is it one without TLS? With it: wss://"
            if "0x15" in error.message or "0x16" in error.message:
                advice = "that port speaks TLS: use wss://"
    elif isinstance(error, (InvalidHeader, InvalidUpgrade)):
        advice = "it is no WebSocket server, or something in between has changed its answer"
    error.message = f"{show(uri)}: {error.message}" + (f"; {advice}" if advice else "")
    error.args = (error.message, *error.args[1:])
