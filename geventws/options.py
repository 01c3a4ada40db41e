"""The options, with their defaults and checks: one set for all ways to open a WebSocket.

Every limit is finite by default; `None` lifts it on purpose, and 0 is an error, because in
other libraries it means now "none", now "unlimited".
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .protocol.headers import is_token
from .protocol.uri import split_host

if TYPE_CHECKING:
    from .protocol.http import Request, Response

__all__ = [
    "OPTION_NAMES",
    "SERVER_OPTIONS",
    "Compression",
    "Network",
    "Options",
    "RateLimit",
    "check_option_names",
    "check_options",
    "check_timeout",
    "make_options",
]

SubprotocolSelector = Callable[["Request", Sequence[str]], "str | None"]
OriginCheck = Callable[["Request", str], bool]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _check_number(name: str, value: Any, kind: type[int] | type[float], unit: str) -> None:
    """Raise unless `value` is None or a positive number of `kind`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise TypeError(f"{name} takes a number of {unit} or None (unlimited), not {value!r}")
    # Compiled code counts in 64 bits; nothing real comes near. NaN is not within either.
    if not 0 < value < 2**60:
        raise ValueError(f"{name} takes a positive number of {unit} or None (unlimited), not {value!r}")


def check_timeout(timeout: Any) -> None:
    """Raise unless `timeout`, an argument of a call that waits, is None or seconds from 0 on."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout takes seconds, 0 or more, or None, not {timeout!r}")
    # NaN is not within either.
    if not timeout >= 0:
        raise ValueError(f"timeout takes seconds, 0 or more, or None, not {timeout!r}")


def _check_range(name: str, value: Any, low: int, high: int) -> None:
    """Raise unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} takes an integer from {low} to {high}, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} takes an integer from {low} to {high}, not {value!r}")


def _check_origin(origin: str) -> None:
    """Raise if no browser can ever send this origin (RFC 6454 section 6.2)."""
    scheme, separator, authority = origin.partition("://")
    try:
        if origin == "null":
            return
        if not separator or not is_token(scheme):
            raise ValueError("it has no scheme")
        if "*" in authority or authority.endswith(":"):
            raise ValueError("it is compared whole")
        _, port = split_host(authority)
        # RFC 6454 section 6.2 (step 4): the default port of the scheme is not named.
        if port is not None and port == {"http": 80, "https": 443}.get(scheme.lower()):
            raise ValueError(f"browsers name no port that is the scheme's default; leave :{port} out")
    except ValueError as error:
        raise ValueError(
            f'origins: {origin!r} is not an origin such as "https://example.com": {error}; '
            "None allows any, a callable decides"
        ) from None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """How messages are compressed where the peer can do permessage-deflate (RFC 7692).

    Attributes:
        level: effort, from 1 (fast) to 9 (small). Default 5. Where the package isal is installed
            (the extra `fast`), 1 to 6 mean that: a third of the time, messages a tenth larger.
        window_bits: the largest LZ77 window of ours, 2**window_bits bytes, from 9 to 15. Default 12:
            4 KiB, which holds a few typical messages. A connection keeps the last so many bytes of what
            it sent, and of what it received; above 13 it keeps zlib's whole state too.
        mem_level: memory for zlib's hash tables and buffers, from 1 to 9. Default 5. Up to a window of 13
            it is taken only while a message is compressed.
        context_takeover: keep the window from message to message: smaller messages, and
            memory held for each connection. Default True.
        threshold: messages below this many bytes go uncompressed. Default 64.
    """

    level: int = 5
    window_bits: int = 12
    mem_level: int = 5
    context_takeover: bool = True
    threshold: int = 64

    def __post_init__(self) -> None:
        _check_range("level", self.level, 1, 9)
        # RFC 7692 allows 8 too; zlib cannot produce a raw stream with a 256-byte window.
        _check_range("window_bits", self.window_bits, 9, 15)
        _check_range("mem_level", self.mem_level, 1, 9)
        if not isinstance(self.context_takeover, bool):
            raise TypeError(f"context_takeover takes True or False, not {self.context_takeover!r}")
        _check_range("threshold", self.threshold, 0, 2**31)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """How much a peer may send in a second, on average. Above that the connection is failed with 1008.

    Each is a bucket that holds `burst` seconds' worth: so much may come at once. What comes is bounded by
    flow control and by each connection's share of a turn in any case; this is for applications that
    know what an honest client sends.

    Attributes:
        messages: messages. Default None: any number.
        bytes: bytes of messages, after inflating. Default None: any number. `burst` times this must hold the
            largest message.
        controls: Pings, and Pongs that answer no Ping of ours. Default 10 000.
        burst: seconds. Default 10.
    """

    messages: float | None = None
    bytes: float | None = None
    controls: float | None = 10_000
    burst: float = 10.0

    def __post_init__(self) -> None:
        _check_number("messages", self.messages, float, "messages a second")
        _check_number("bytes", self.bytes, float, "bytes a second")
        _check_number("controls", self.controls, float, "control frames a second")
        if self.burst is None:
            raise TypeError("burst takes a number of seconds, not None")
        _check_number("burst", self.burst, float, "seconds")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a server or a client; times in seconds, sizes in bytes.

    `None` lifts a limit. What happens when one is reached stands behind it. `connect` takes all but
    `stop_timeout`, `origins`, `max_connections`, `max_connections_per_address`, `max_handshakes`,
    `trusted_proxies` and `process_request`.

    Attributes:
        max_message_size: bytes of one message after inflating. Default 1 MiB. Close code 1009,
            at the frame header where the header tells.
        max_fragments: frames of one message, empty ones too. Default 4096. Close code 1009.
        max_queue: messages not yet received by the application. Default 16. Reading pauses.
        max_queue_bytes: bytes of those messages. Default 1 MiB. Reading pauses.
        write_limit: bytes waiting to be written. Default 1 MiB. `send` blocks; a broadcast calls the
            peer slow.
        write_timeout: seconds without progress of a write. Default 10. The connection is aborted.
        open_timeout: seconds for TLS handshake and request head together. Default 10. Closed.
        close_timeout: seconds for the closing handshake. Default 5. TCP is ended.
        ping_interval: seconds without a byte from the peer after which a Ping is sent. Default 20.
        ping_timeout: seconds from that Ping without a byte from the peer. Default 20. 1011, TCP is
            ended.
        stop_timeout: seconds that a stopping server waits for its connections. Default 10. Cut.
        compression: None, True, or a `Compression`. Default None: off.
        subprotocols: names in the order of preference, or `callable(request, offered)` that gives
            one of the offered names or None. Default: none.
        origins: "same-host", a list of origins that are compared whole, `callable(request, origin)`
            that gives True or False, or None for any. Default "same-host". Status 403.
        max_connections: connections at a time. Default 10 000. Status 503.
        max_connections_per_address: connections at a time of one IPv4 address or one IPv6 network of 64 bits.
            Default "max_connections", no other limit than that: behind a proxy all clients have the proxy's
            address, see `trusted_proxies`. Status 503.
        max_handshakes: connections from which a request is awaited, TLS handshakes among them. Default 1024.
            The one that waits longest is dropped, with status 503 where it can be told.
        trusted_proxies: addresses and networks ("10.0.0.0/8") of proxies; what they say of their client in
            X-Forwarded-For counts for `max_connections_per_address`. Default: none.
        rate_limit: a `RateLimit`, or None for none. Default `RateLimit()`: 10 000 control frames a second.
            Close code 1008.
        max_line: bytes of the request line or of one header line. Default 8 KiB. Status 414 or 431.
        max_headers: header fields of a request. Default 100. Status 431.
        max_head: bytes of a request head. Default 64 KiB. Status 431.
        slow_consumer: what a broadcast does with a peer whose `write_limit` is reached: "close" with
            1013, or "skip" this message for it. Default "close".
        process_request: `callable(request)` that gives None, or a `Response` that is sent instead of
            the 101. Default None.

    Raises:
        TypeError, ValueError: for a value that is not possible; the message says what is.
    """

    max_message_size: int | None = 1024 * 1024
    max_fragments: int | None = 4096
    max_queue: int | None = 16
    max_queue_bytes: int | None = 1024 * 1024
    write_limit: int | None = 1024 * 1024
    write_timeout: float | None = 10.0
    open_timeout: float | None = 10.0
    close_timeout: float | None = 5.0
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    stop_timeout: float | None = 10.0
    compression: Compression | Literal[True] | None = None
    subprotocols: Iterable[str] | SubprotocolSelector = ()
    origins: Literal["same-host"] | Iterable[str] | OriginCheck | None = "same-host"
    max_connections: int | None = 10_000
    max_connections_per_address: int | Literal["max_connections"] | None = "max_connections"
    max_handshakes: int | None = 1024
    trusted_proxies: Iterable[str | Network] = ()
    rate_limit: RateLimit | None = RateLimit()
    max_line: int | None = 8 * 1024
    max_headers: int | None = 100
    max_head: int | None = 64 * 1024
    slow_consumer: Literal["close", "skip"] = "close"
    process_request: Callable[[Request], Response | None] | None = None

    def __post_init__(self) -> None:
        for name in ("max_message_size", "max_queue_bytes", "write_limit", "max_line", "max_head"):
            _check_number(name, getattr(self, name), int, "bytes")
        for name, unit in (
            ("max_fragments", "frames"),
            ("max_queue", "messages"),
            ("max_connections", "connections"),
            ("max_handshakes", "connections"),
            ("max_headers", "header fields"),
        ):
            _check_number(name, getattr(self, name), int, unit)
        if self.max_connections_per_address != "max_connections":
            _check_number("max_connections_per_address", self.max_connections_per_address, int, "connections")
        for name in (
            "write_timeout",
            "open_timeout",
            "close_timeout",
            "ping_interval",
            "ping_timeout",
            "stop_timeout",
        ):
            _check_number(name, getattr(self, name), float, "seconds")
        if self.compression is True:
            object.__setattr__(self, "compression", Compression())
        elif self.compression is not None and not isinstance(self.compression, Compression):
            raise TypeError(f"compression takes None, True or a Compression, not {self.compression!r}")
        if not callable(self.subprotocols):
            self._set_names("subprotocols", self.subprotocols)
            for name in self.subprotocols:
                if not is_token(name):
                    raise ValueError(f"subprotocols: {name!r} is not a token (RFC 6455 section 4.1)")
        if self.origins is not None and self.origins != "same-host" and not callable(self.origins):
            self._set_names("origins", self.origins)
            for origin in self.origins:
                _check_origin(origin)
        if self.rate_limit is not None and not isinstance(self.rate_limit, RateLimit):
            raise TypeError(f"rate_limit takes None or a RateLimit, not {self.rate_limit!r}")
        self._set_networks()
        if self.slow_consumer not in ("close", "skip"):
            raise ValueError(f'slow_consumer takes "close" or "skip", not {self.slow_consumer!r}')
        if self.process_request is not None and not callable(self.process_request):
            raise TypeError(f"process_request takes a callable or None, not {self.process_request!r}")

    def _set_networks(self) -> None:
        """Keep the proxies as a tuple of networks."""
        given = self.trusted_proxies
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise TypeError(f"trusted_proxies takes a list of addresses and networks, not {given!r}")
        networks = []
        for item in given:
            if not isinstance(item, (str, ipaddress.IPv4Network, ipaddress.IPv6Network)):
                raise TypeError(f"trusted_proxies takes addresses and networks, not {item!r}")
            try:
                networks.append(ipaddress.ip_network(item))
            except ValueError as error:
                raise ValueError(f"trusted_proxies: {error}") from None
        object.__setattr__(self, "trusted_proxies", tuple(networks))

    def _set_names(self, name: str, value: Any) -> None:
        """Keep a list of names as a tuple; a bare string is a mistake, not a list of letters."""
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise TypeError(f"{name} takes a list of strings, not {value!r}")
        names = tuple(value)
        for item in names:
            if not isinstance(item, str):
                raise TypeError(f"{name} takes strings, not {item!r}")
        object.__setattr__(self, name, names)


#: What options and arguments are called in other libraries: websockets, websocket-client, aiohttp, ws, ...
_ELSEWHERE = {
    "additional_headers": "headers",
    "allowed_origins": "origins",
    "cert": "certfile",
    "connect_timeout": "open_timeout",
    "cors_allowed_origins": "origins",
    "deflate": "compression",
    "extra_headers": "headers",
    "handshake_timeout": "open_timeout",
    "heartbeat": "ping_interval",
    "key": "keyfile",
    "max_message_length": "max_message_size",
    "max_msg_size": "max_message_size",
    "max_payload": "max_message_size",
    "max_size": "max_message_size",
    "max_queue_size": "max_queue",
    "ssl": "ssl_context",
    "sslopt": "ssl_context",
    "timeout": "open_timeout",
}

OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(Options))

#: Options that concern servers only, and why a client has none of them.
SERVER_OPTIONS = dict.fromkeys(
    (
        "max_connections",
        "max_connections_per_address",
        "max_handshakes",
        "origins",
        "process_request",
        "stop_timeout",
        "trusted_proxies",
    ),
    "that is one for servers",
)


def make_options(
    face: str,
    options: Mapping[str, Any],
    *,
    others: Iterable[str] = (),
    refused: Mapping[str, str] | None = None,
) -> Options:
    """Return the options that a caller has named; arguments and errors as `check_option_names`.

    Raises:
        ValueError: for a value that is not possible.
    """
    check_option_names(face, options, others=others, refused=refused)
    return Options(**options)


def check_options(face: str, options: Mapping[str, Any]) -> None:
    """Raise as `make_options` does, for options that will be made later."""
    check_option_names(face, options)
    # What can be gone through only once must still be there then.
    Options(**{name: value for name, value in options.items() if not isinstance(value, Iterator)})


def check_option_names(
    face: str,
    names: Iterable[str],
    *,
    others: Iterable[str] = (),
    refused: Mapping[str, str] | None = None,
) -> None:
    """Raise unless each of these is the name of an option; one that is nearly so is told.

    Args:
        face: what was given them, as the message begins: "connect()".
        names: those that a caller has used.
        others: names of further arguments, which may have been meant.
        refused: options that mean nothing to this face, and why.

    Raises:
        TypeError: for a name that is none.
    """
    refused = refused or {}
    for name in names:
        if name in refused:
            raise TypeError(f"{face} has no option {name!r}: {refused[name]}")
        if name not in OPTION_NAMES:
            known = sorted({*OPTION_NAMES, *others} - refused.keys())
            similar = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else []
            # Not less: the other one would be accepted, and do something else.
            similar = similar or difflib.get_close_matches(str(name), known, 1, 0.8)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            if name == "timeout" and similar:
                # In websocket-client it is both.
                hint += " receive() takes a timeout of its own"
            raise TypeError(f"{face} has no option {name!r}{hint}")


def as_limit(value: int | None) -> int:
    """Return a limit that can be compared with; None is one that is never reached."""
    return 2**62 if value is None else value
