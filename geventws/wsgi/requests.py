"""Reads an upgrade request out of a WSGI environ."""

from __future__ import annotations

import urllib.parse
from typing import Any

from ..exceptions import InvalidHeader, InvalidMessage
from ..protocol.headers import Headers
from ..protocol.http import Request
from ..protocol.uri import split_host

__all__ = ["asks_for_websocket", "has_body", "make_request"]


def asks_for_websocket(environ: dict[str, Any]) -> bool:
    """Tell whether a request asks for a WebSocket, well or badly."""
    upgrade = environ.get("HTTP_UPGRADE")
    if not upgrade:
        return False
    # RFC 9110 section 7.8: a list of protocols, each with a version or without.
    return any(
        protocol.partition("/")[0].strip(" \t").lower() == "websocket" for protocol in upgrade.split(",")
    )


def has_body(environ: dict[str, Any]) -> bool:
    """Tell whether a body comes behind the head, or may come."""
    return "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "") not in ("", "0")


def make_request(environ: dict[str, Any]) -> Request:
    """Make a Request.

    Its path is PATH_INFO: the path below where the application is mounted, as for the application.

    Raises:
        InvalidMessage: 400, if it is not one of HTTP/1.1.
        InvalidHeader: 400, for a Host that is none.
    """
    path = environ.get("PATH_INFO", "")
    target = urllib.parse.quote(
        (environ.get("SCRIPT_NAME", "") + path).encode("latin-1"), safe="/!$&'()*+,;=:@~"
    )
    query = environ.get("QUERY_STRING", "")
    fields = []
    for key, value in environ.items():
        if key.startswith("HTTP_") and isinstance(value, str):
            fields.append((key[5:].replace("_", "-").title(), value))
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            fields.append((key.replace("_", "-").title(), value))
    request = Request(
        environ.get("REQUEST_METHOD", ""), (target or "/") + (f"?{query}" if query else ""), Headers(fields)
    )
    # PEP 3333: bytes, spelt as latin-1.
    request.path = path.encode("latin-1").decode("utf-8", "replace")
    request.remote_address = _address(environ)
    request.environ = environ
    version = environ.get("SERVER_PROTOCOL", "")
    if version != "HTTP/1.1":
        # RFC 6455 section 4.2.1: "An HTTP/1.1 or higher GET request".
        raise InvalidMessage(f"HTTP version is {version!r}, not HTTP/1.1", "http.version", 400)
    host = environ.get("HTTP_HOST", "")
    if host:
        try:
            split_host(host)
        except ValueError as error:
            raise InvalidHeader(f"Host is invalid: {error}", "Host", host) from None
    return request


def _address(environ: dict[str, Any]) -> Any:
    host, port = environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
    if not host:
        # A Unix socket.
        return ""
    return (host, int(port) if str(port).isdecimal() else 0)
