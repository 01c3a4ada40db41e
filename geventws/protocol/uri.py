"""WebSocket URIs (RFC 6455 section 3), and the host[:port] that URIs, Host and Origin share.

Besides `ws:` and `wss:` there is `ws+unix:/path/to/socket:/path?query` for Unix sockets.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
import urllib.parse

from ..exceptions import InvalidURI

__all__ = ["URI", "parse_uri", "show_uri", "split_host", "unix_uri"]

# RFC 3986 section 3.2.2: reg-name, without what no host name has: the percent sign, and the comma,
# which is the mark of two Host fields that something in front of us has joined.
_REG_NAME = b"-._~!$&'()*+;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

# RFC 3986: what may stand in a path and query as it is. The rest, all of it outside ASCII once
# the checks are done, is percent-encoded.
_PATH_SAFE = "!$%&'()*+,-./:;=?@_~[]|^`{}\"<>\\"

_PORT = re.compile("[0-9]{1,5}")

# For what is shown of a URI, good or not. In front of an authority: a scheme, or what stands in its place.
_SCHEME = re.compile(r"(?:[^:/@\[]*:)?/+")
# A path has no authority in front, nor has that of a Unix socket.
_IS_PATH = re.compile(r"/(?!/)(?!.*://)|ws\+unix:(?://)?/(?!/)", re.IGNORECASE | re.ASCII | re.DOTALL)
# A host; and a port and the beginning of the path, if nothing else stands behind it.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*(?:%\w*)?\]|[^:/]*)((?::[0-9]{0,5})?(?:/|\Z))?")


def split_host(authority: str) -> tuple[str, int | None]:
    """Take host[:port] apart, as in Host (RFC 9110 section 7.2) and Origin (RFC 6454 section 6.2).

    Returns:
        The host in lower case, IPv6 in its canonical form without brackets; and the port, or
        None where none is named.

    Raises:
        ValueError: if that is not a host: empty, userinfo, a character or port that cannot be.
    """
    # A server sees the same few names all the time. Longer ones are no names of hosts.
    return _split_host(authority) if len(authority) > 255 else _split_known_host(authority)


def _split_host(authority: str) -> tuple[str, int | None]:
    """Take host[:port] apart."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        # A zone ("%eth0") means something on one machine only.
        if not bracket or "%" in host or (rest and rest[0] != ":"):
            raise ValueError(f"{show_uri(authority)!r} is not a host with an optional port")
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError("what stands in brackets is not an IPv6 address") from None
        port = rest[1:]
    else:
        if authority.count(":") > 1:
            raise ValueError("it has more than one colon; an IPv6 address stands in brackets")
        host, _, port = authority.partition(":")
        if host == "" or not host.isascii() or host.encode("ascii").translate(None, _REG_NAME):
            raise ValueError(f"{show_uri(authority)!r} is not a host with an optional port")
        host = host.lower()
    if port == "":
        return host, None
    if not _PORT.fullmatch(port):
        # Not repeated: it may be a password that has no host behind it.
        raise ValueError("what stands behind the colon is not a port number")
    if int(port) > 65535:
        raise ValueError(f"{port} is not a port number, which is 65535 at most")
    return host, int(port)


_split_known_host = functools.lru_cache(maxsize=64)(_split_host)


@dataclasses.dataclass(frozen=True, slots=True)
class URI:
    """A WebSocket URI, taken apart (RFC 6455 section 3).

    Attributes:
        secure: True for `wss:`.
        host: the host in lower case; IPv6 without brackets, other scripts in Punycode.
            "localhost" for a Unix socket.
        port: its port, or the scheme's default: 80, or 443 for `wss:`.
        path: the path, percent-encoded as it is sent; "/" where the URI has none.
        query: what stands behind "?", or "".
        userinfo: user name and password for Basic authentication, decoded, or None.
        unix_path: the path of the Unix socket, or None.
    """

    secure: bool
    host: str
    port: int
    path: str = "/"
    query: str = dataclasses.field(default="", repr=False)
    userinfo: tuple[str, str] | None = dataclasses.field(default=None, repr=False)
    unix_path: str | None = None

    @property
    def resource_name(self) -> str:
        """The path with its query: what the request line says."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def authority(self) -> str:
        """The value of Host: the port only where it is not the default."""
        # RFC 6455 section 4.1: "/host/ followed by ... /port/ (when not using the default port)".
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_uri(uri: str) -> URI:
    """Read a WebSocket URI (RFC 6455 section 3).

    Args:
        uri: "ws://host[:port][/path][?query]", "wss://..." or
            "ws+unix:/path/to/socket[:/path][?query]". Other scripts are encoded: the host as
            IDNA (RFC 3490), path and query as percent-encoded UTF-8.

    Raises:
        InvalidURI: with what is wrong.
    """
    if not isinstance(uri, str):
        raise TypeError(f"a URI is a str, not {type(uri).__name__}")
    # Who asks the same server again and again mostly asks it the same. What may hold credentials is not
    # remembered.
    return _parse_uri(uri) if "@" in uri or "?" in uri or len(uri) > 255 else _parse_known_uri(uri)


def show_uri(uri: str) -> str:
    """Return a URI or a request target, good or not, for a message: no credentials, query and fragment."""
    # RFC 6749 section 4.2.2: a fragment may hold an access token.
    mark = re.search("[?#]", uri)
    shown, hidden = (uri, "") if mark is None else (uri[: mark.start()], uri[mark.start() :])
    # A path, and that of a Unix socket, have no credentials in front.
    if not _IS_PATH.match(shown):
        scheme = _SCHEME.match(shown)
        start = scheme[0] if scheme else ""
        rest = shown[len(start) :]
        _, at, behind = rest.rpartition("@")
        if "@" in hidden and (at or ":" in rest):
            # Perhaps a password in which that mark should have been encoded.
            shown = f"{start}***"
        else:
            host = _HOST.match(behind)
            if host is not None and host[2] is None:
                # Perhaps a password that has no host behind it.
                behind = f"{host[1]}:***"
            shown = f"{start}***@{behind}" if at else f"{start}{behind}"
    return f"{shown}{hidden[0]}..." if hidden else shown


def unix_uri(path: str) -> str:
    """Return the URI of a Unix socket.

    Args:
        path: its path, absolute.
    """
    # RFC 3986 section 2.1; so is a colon, which would end the path.
    return "ws+unix:" + urllib.parse.quote(path, errors="surrogateescape")


def _parse_uri(uri: str) -> URI:
    # Nearly all are printable ASCII without a space.
    for character in uri if " " in uri or not (uri.isascii() and uri.isprintable()) else "":
        if character <= " " or "\x7f" <= character <= "\xa0":
            raise InvalidURI(
                f"URI {show_uri(uri)!r} has a space or control character: percent-encode it", uri
            )
        if "\ud800" <= character <= "\udfff":
            raise InvalidURI(f"URI {show_uri(uri)!r} has a lone surrogate, which has no UTF-8", uri)
    # RFC 6455 section 3: "Fragment identifiers are meaningless ... and MUST NOT be used".
    if "#" in uri:
        raise InvalidURI(
            f"URI {show_uri(uri)!r} has a fragment, which a WebSocket cannot have: write # as %23", uri
        )
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower()
    if colon and scheme in ("ws", "wss") and rest.startswith("//"):
        return _parse_tcp(uri, scheme == "wss", rest[2:])
    if colon and scheme == "ws+unix":
        return _parse_unix(uri, rest)
    raise InvalidURI(f"URI {show_uri(uri)!r} does not begin with ws://, wss:// or ws+unix:", uri)


_parse_known_uri = functools.lru_cache(maxsize=64)(_parse_uri)


def _parse_tcp(uri: str, secure: bool, rest: str) -> URI:
    # RFC 3986 section 3.2: the authority ends with the next "/" or "?".
    end = min((position for position in (rest.find("/"), rest.find("?")) if position >= 0), default=len(rest))
    authority, resource = rest[:end], rest[end:]
    if "\\" in authority:
        # RFC 3986 has none; to browsers it is a "/", which ends the host.
        raise InvalidURI(
            f"URI {show_uri(uri)!r} has a backslash in front of its path: write \\ in a password as %5C", uri
        )
    userinfo: tuple[str, str] | None = None
    if "@" in authority:
        user, _, authority = authority.partition("@")
        userinfo = _parse_userinfo(uri, user)
    try:
        host, port = split_host(_to_ascii(authority))
    except ValueError as error:  # UnicodeError, of the idna codec, is one too.
        # Behind an "@" that stands elsewhere: what was taken for the host may be a piece of a password.
        detail = "write / and @ in a password as %2F and %40" if "@" in authority + resource else str(error)
        raise InvalidURI(f"URI {show_uri(uri)!r} has no valid host and port: {detail}", uri) from None
    if port == 0:
        raise InvalidURI(f"URI {show_uri(uri)!r} names port 0, which cannot be connected to", uri)
    if port is None:
        port = 443 if secure else 80
    path, query = _split_resource(resource)
    return URI(secure, host, port, path, query, userinfo)


def _parse_unix(uri: str, rest: str) -> URI:
    if rest.startswith("///"):
        rest = rest[2:]
    socket_path, _, query = rest.partition("?")
    socket_path, colon, path = socket_path.partition(":")
    if (
        not socket_path.startswith("/")
        or socket_path.startswith("//")
        or (colon and not path.startswith("/"))
    ):
        raise InvalidURI(f"URI {show_uri(uri)!r} is not of the form ws+unix:/path/to/socket:/path?query", uri)
    # A path is bytes: what is not UTF-8 is kept as os.fsencode() expects it.
    unix_path = urllib.parse.unquote(socket_path, errors="surrogateescape")
    if "\0" in unix_path:
        raise InvalidURI(f"URI {show_uri(uri)!r} has a NUL in the path of its socket", uri)
    path, query = _split_resource(f"{path}?{query}")
    return URI(False, "localhost", 80, path, query, None, unix_path)


def _parse_userinfo(uri: str, userinfo: str) -> tuple[str, str]:
    user, _, password = userinfo.partition(":")
    user, password = urllib.parse.unquote(user), urllib.parse.unquote(password)
    # RFC 7617 section 2: "a user-id containing a colon character is invalid", and so are control
    # characters.
    if ":" in user or any(character < " " or character == "\x7f" for character in user + password):
        raise InvalidURI(
            f"URI {show_uri(uri)!r} has a user name or password that Basic authentication cannot send", uri
        )
    return user, password


def _split_resource(resource: str) -> tuple[str, str]:
    """Split path and query, and percent-encode what is not ASCII."""
    path, _, query = urllib.parse.quote(resource, safe=_PATH_SAFE).partition("?")
    return path or "/", query


def _to_ascii(authority: str) -> str:
    """Encode a host of another script as IDNA."""
    if authority.isascii():
        return authority
    # The codec's work grows with the square of a label's length in older Pythons. No host name
    # is longer than 253 (RFC 1035 section 2.3.4).
    if len(authority) > 253 + len(":65535"):
        raise ValueError("it is longer than 253 characters")
    host, colon, port = authority.partition(":")
    name = host.encode("idna")
    # It drops characters, and knows some for a colon, a bracket or several dots: others would read another
    # host or port. RFC 3490 section 3.1 has the four dots.
    if name.translate(None, _REG_NAME) or name.count(b".") != len(re.findall("[.\u3002\uff0e\uff61]", host)):
        raise ValueError("IDNA makes no host name of what is not ASCII")
    return name.decode("ascii") + colon + port
