"""What `connect` is asked for: checked before anything is done."""

from __future__ import annotations

import base64
import dataclasses
import functools
import ipaddress
import ssl
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..options import OPTION_NAMES, SERVER_OPTIONS, Options, check_option_names
from ..protocol.headers import Headers, is_token
from ..tlssocket import check_context
from .proxy import Proxy, parse_proxy

if TYPE_CHECKING:
    from ..protocol.uri import URI

__all__ = ["Settings", "check_argument_names", "make_settings"]

_OPTION_NAMES = OPTION_NAMES - SERVER_OPTIONS.keys()

#: Fields that are meant for one server.
_CREDENTIALS = frozenset({"authorization", "cookie", "host", "proxy-authorization"})

# RFC 6265 section 4.1.1: cookie-octet.
_COOKIE_OCTETS = frozenset(
    map(chr, (0x21, *range(0x23, 0x2C), *range(0x2D, 0x3B), *range(0x3C, 0x5C), *range(0x5D, 0x7F)))
)


@dataclasses.dataclass(slots=True)
class Settings:
    """What `connect` was asked for, checked."""

    options: Options
    headers: Headers
    origin: str | None
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    proxy: Proxy | bool
    source_address: tuple[str, int] | None
    max_redirects: int
    #: The server that credentials stay with, after a redirect to another.
    dropped_by: URI | None = None

    def without_credentials(self, server: URI) -> Settings:
        """Return what holds for another server than `server`, which was meant and redirects to it."""
        kept = [(name, value) for name, value in self.headers.items() if name.lower() not in _CREDENTIALS]
        dropped_by = self.dropped_by
        if dropped_by is None and (len(kept) < len(self.headers.items()) or server.userinfo is not None):
            dropped_by = server
        return dataclasses.replace(self, headers=Headers(kept), server_hostname=None, dropped_by=dropped_by)


def make_settings(
    *,
    headers: Any = (),
    cookies: Mapping[str, str] | None = None,
    auth: Any = None,
    origin: str | None = None,
    ssl_context: Any = None,
    server_hostname: str | None = None,
    proxy: Any = True,
    source_address: tuple[str, int] | None = None,
    max_redirects: int = 5,
    **options: Any,
) -> Settings:
    """Check the arguments of `connect`.

    Raises:
        TypeError, ValueError: for what is not possible.
    """
    fields = _fields(headers)
    if auth is not None:
        _add(fields, "Authorization", _authorization(auth), "auth")
    if cookies is not None and not isinstance(cookies, Mapping):
        raise TypeError(f"cookies takes a mapping of names to values, not {_type(cookies)}")
    if cookies:
        _add(fields, "Cookie", "; ".join(_cookie(name, value) for name, value in cookies.items()), "cookies")
    if "user-agent" not in fields:
        version = sys.modules[__name__.partition(".")[0]].__version__
        fields.add("User-Agent", f"geventws/{version}")
    if ssl_context is not None:
        check_context(ssl_context)
        if ssl_context.protocol == ssl.PROTOCOL_TLS_SERVER:
            raise ValueError("ssl_context is for servers (PROTOCOL_TLS_SERVER): a client cannot use it")
    if server_hostname is not None and (not isinstance(server_hostname, str) or "\0" in server_hostname):
        raise TypeError(f"server_hostname takes the name of a host, a str, not {server_hostname!r}")
    if source_address is not None:
        _check_source(source_address)
    if isinstance(proxy, str):
        proxy = parse_proxy(proxy)
    elif proxy is None:
        proxy = False
    elif proxy is not True:
        # Without the value, which may hold a password.
        raise TypeError(f"proxy takes a URL, True (as the environment says) or None, not {_type(proxy)}")
    if isinstance(max_redirects, bool) or not isinstance(max_redirects, int):
        raise TypeError(f"max_redirects takes a number from 0 on, not {max_redirects!r}")
    if max_redirects < 0:
        raise ValueError(f"max_redirects takes a number from 0 on, not {max_redirects!r}")
    return Settings(
        _make_options(options),
        fields,
        origin,
        ssl_context,
        server_hostname,
        proxy,
        source_address,
        max_redirects,
    )


def check_argument_names(face: str, names: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise TypeError unless each of these is an argument of `connect`, or an option of a client.

    Args:
        face: as for `check_option_names`.
        names: those that a caller has used.
        others: arguments that `face` has besides.
    """
    own = make_settings.__kwdefaults__ or {}
    check_option_names(
        face,
        [name for name in names if name not in own],
        others={*own, *others},
        refused=SERVER_OPTIONS,
    )


def _make_options(options: dict[str, Any]) -> Options:
    if not options.keys() <= _OPTION_NAMES:
        check_argument_names("connect()", options)
    if callable(options.get("subprotocols")):
        raise TypeError("subprotocols takes a list of names; a callable is for servers, which choose")
    parts = tuple(part for option in options.items() for part in option)
    try:
        hash(parts)
        shared = True
    except TypeError:
        # A list among them.
        shared = False
    return _shared_options(*parts) if shared else Options(**options)


@functools.lru_cache(maxsize=16, typed=True)
def _shared_options(*parts: Any) -> Options:
    """Return the options of these names and values by turns: the same object for the same ones.

    They cannot be changed; to check them takes a tenth of the time of connecting.
    """
    return Options(**dict(zip(parts[::2], parts[1::2], strict=True)))


def _fields(headers: Any) -> Headers:
    """Return the fields that the caller gives; names and values are checked when the request is made."""
    if not isinstance(headers, (Headers, Mapping)):
        try:
            headers = [(name, value) for name, value in headers]
        except (TypeError, ValueError):
            # Without the values, which may be secret.
            raise TypeError("headers takes (name, value) pairs or a mapping") from None
    return Headers(headers)


def _check_source(address: Any) -> None:
    """Check what to connect from."""
    if (
        not isinstance(address, tuple)
        or len(address) != 2
        or not isinstance(address[0], str)
        or not isinstance(address[1], int)
        or not 0 <= address[1] <= 65535
    ):
        raise TypeError(f"source_address takes (address, port), port 0 for any, not {address!r}")
    try:
        ipaddress.ip_address(address[0] or "::")
    except ValueError:
        # The system would look up a name while nothing else runs.
        raise ValueError(f"source_address takes an address of this machine, not {address[0]!r}") from None


def _add(fields: Headers, name: str, value: str, argument: str) -> None:
    if name in fields:
        raise ValueError(f"{name} is in headers and in {argument}: name it once")
    fields.add(name, value)


def _authorization(auth: Any) -> str:
    """Return the value of Authorization."""
    if isinstance(auth, str):
        # RFC 6750 section 2.1: b64token.
        if not auth.isascii() or not auth.isprintable() or " " in auth or not auth:
            raise ValueError(
                "auth takes a bearer token of printable ASCII without spaces or an end of line "
                "(of a file's, take token.strip()), or (user name, password)"
            )
        return f"Bearer {auth}"
    if not isinstance(auth, tuple) or len(auth) != 2 or not all(isinstance(part, str) for part in auth):
        raise TypeError("auth takes (user name, password) for Basic, or a str, a bearer token")
    user, password = auth
    # RFC 7617 section 2.
    if ":" in user or any(character < " " or character == "\x7f" for character in user + password):
        raise ValueError("auth: a user name has no colon, and neither it nor the password control characters")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _cookie(name: Any, value: Any) -> str:
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"cookies takes names and values that are str, not {_type(name)} and {_type(value)}")
    if not is_token(name) or not _COOKIE_OCTETS.issuperset(value):
        raise ValueError(
            f"cookie {name!r} has characters that no cookie has (RFC 6265 section 4.1.1): encode it"
        )
    return f"{name}={value}"


def _type(value: Any) -> str:
    """Return what kind of value this is, for a message about one that may be secret."""
    return type(value).__name__
