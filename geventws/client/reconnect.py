"""`connect_forever`: one WebSocket after the other, with delays that spare the server.

RFC 6455 section 7.2.3.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.event import Event

from ..exceptions import (
    ConcurrencyError,
    ConnectError,
    ConnectionClosed,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    OpenTimeout,
    ProxyError,
    TLSError,
    WebSocketError,
)
from ..protocol.uri import parse_uri
from ..websocket import WebSocket
from .connect import open_websocket, show
from .proxy import is_final_status
from .settings import check_argument_names, make_settings

__all__ = ["Reconnector", "connect_forever", "is_final_error"]

logger = logging.getLogger("geventws")


def is_final_error(error: WebSocketError) -> bool:
    """Tell whether trying again is of no use: what `connect_forever` asks unless it is given another one.

    Final are a certificate that is not good, credentials or a place that a proxy refuses, a status below
    500 but for 408, 425 and 429 (and 501 and 505), a redirect that is not followed, and an answer that is no
    opening handshake of this protocol. Not final are names without an address, refused and lost
    connections, time-outs, answers that are cut off or no HTTP, the other statuses, and the end of a
    WebSocket that was open, whatever its close code.
    """
    if isinstance(error, TLSError):
        return error.unverified
    if isinstance(error, ProxyError):
        return error.refused
    if isinstance(error, InvalidStatus) and not isinstance(error, InvalidRedirect):
        return is_final_status(error.response.status)
    return not isinstance(error, (ConnectError, ConnectionClosed, OpenTimeout, InvalidMessage))


class Reconnector:
    """An endless row of WebSockets to one server; `connect_forever` makes it.

    Attributes:
        websocket: the one that is open, or the last one; None before the first.
        retries: how often in a row it was tried again, since a connection has lasted.
        last_error: why the last attempt failed, or how the last WebSocket ended; None before that.
    """

    def __init__(
        self,
        uri: str,
        *,
        first_delay: float,
        max_delay: float,
        stable_after: float,
        max_retries: int | None,
        is_final: Callable[[WebSocketError], bool],
        on_retry: Callable[[WebSocketError, float], object] | None,
        options: dict[str, Any],
    ) -> None:
        for name, seconds in (
            ("first_delay", first_delay),
            ("max_delay", max_delay),
            ("stable_after", stable_after),
        ):
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} takes seconds, 0 or more, not {seconds!r}")
            if not 0 <= seconds < 2**31:
                raise ValueError(f"{name} takes seconds, 0 or more, not {seconds!r}")
        if max_retries is not None:
            if isinstance(max_retries, bool) or not isinstance(max_retries, int):
                raise TypeError(f"max_retries takes a number or None (unlimited), not {max_retries!r}")
            if max_retries < 1:
                raise ValueError(
                    f"max_retries takes a positive number or None (unlimited), not {max_retries!r}"
                )
        for name, hook in (("is_final", is_final), ("on_retry", on_retry)):
            if not callable(hook) and not (name == "on_retry" and hook is None):
                raise TypeError(f"{name} takes a callable, not {hook!r}")
        check_argument_names("connect_forever()", options, connect_forever.__kwdefaults__ or ())
        self._uri = parse_uri(uri)
        self._settings = make_settings(**options)
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._stable_after = stable_after
        self._max_retries = max_retries
        self._is_final = is_final
        self._on_retry = on_retry
        self._stopped = Event()
        self._iterating = False
        self.websocket: WebSocket | None = None
        self.retries = 0
        self.last_error: WebSocketError | None = None

    def __repr__(self) -> str:
        return f"<Reconnector {show(self._uri)} retries={self.retries}>"

    def stop(self) -> None:
        """Let the iteration end, with 1000 for the WebSocket that is open. Does not wait.

        Its `receive` and iteration go on until the server has answered the Close. A delay ends at once; an
        attempt that is under way is finished first, within `open_timeout`.
        """
        self._stopped.set()
        if self.websocket is not None and not self.websocket.closed:
            gevent.spawn(_end_sending, self.websocket)

    def __iter__(self) -> Iterator[WebSocket]:
        """Give one open WebSocket after the other; each is closed when the next one is asked for.

        Raises:
            WebSocketError: that is final, or the last one where `max_retries` is reached.
            ConcurrencyError: if it is being iterated over already.
        """
        if self._iterating:
            raise ConcurrencyError("this is being iterated over already; make another with connect_forever()")
        self._iterating = True
        try:
            while not self._stopped.is_set():
                error: WebSocketError | None = None
                try:
                    ws = self.websocket = open_websocket(self._uri, self._settings)
                except WebSocketError as failure:
                    error = failure
                else:
                    opened = time.monotonic()
                    if not self._stopped.is_set():
                        yield ws
                    ws.close()
                    if time.monotonic() - opened >= self._stable_after:
                        self.retries = 0
                    error = ws.close_error
                assert error is not None
                self.last_error = error
                if self._stopped.is_set():
                    return
                limited = self._max_retries is not None and self.retries >= self._max_retries
                if limited or self._is_final(error):
                    raise error
                # Its frames are these: they would hold each other.
                error.__traceback__ = None
                self.retries += 1
                self._wait(error)
        finally:
            self._iterating = False
            if self.websocket is not None:
                # Left by `break` or an exception. Without waiting: this may be any greenlet, where the
                # garbage collector is what ends us.
                self.websocket.begin_close(1000, "")

    def _wait(self, error: WebSocketError) -> None:
        """Wait before the next attempt, or until `stop`."""
        delay = self.next_delay(error)
        logger.info("%s: trying again in %.1f seconds: %s", show(self._uri), delay, str(error))
        if self._on_retry is not None:
            self._on_retry(error, delay)
        self._stopped.wait(delay)

    def next_delay(self, error: WebSocketError) -> float:
        """Return the seconds to wait before retry number `retries`."""
        # RFC 6455 section 7.2.3: the first one after "a random amount of time", from 0 to 5 seconds, the
        # others by truncated binary exponential backoff. So those who have lost the same server at the
        # same moment do not come back at the same moment.
        longest = min(self._max_delay, self._first_delay * 2 ** min(self.retries - 1, 32))
        delay = random.uniform(0 if self.retries <= 1 else longest / 2, longest)
        if isinstance(error, InvalidStatus):
            # RFC 9110 section 10.2.3, as a number of seconds.
            asked = error.response.headers.get("Retry-After", "") or ""
            if asked.isascii() and asked.isdigit() and len(asked) < 10:
                delay += min(int(asked), self._max_delay)
        return delay


def _end_sending(ws: WebSocket) -> None:
    try:
        ws.end_sending()
    except ConnectionClosed:
        pass


def connect_forever(
    uri: str,
    *,
    first_delay: float = 5.0,
    max_delay: float = 60.0,
    stable_after: float = 10.0,
    max_retries: int | None = None,
    is_final: Callable[[WebSocketError], bool] = is_final_error,
    on_retry: Callable[[WebSocketError, float], object] | None = None,
    **options: Any,
) -> Reconnector:
    """Give an open WebSocket, and a new one whenever it is over.

    Example::

        for ws in connect_forever("wss://example.com/feed"):
            try:
                for message in ws:
                    print(message)
            except ConnectionClosedError:
                pass  # the next one comes

    Each turn of the loop has a WebSocket that is open, and its end closes it. What the body raises leaves
    the loop, `ConnectionClosed` too, as it would anywhere. `break` ends it all with 1000. `stop()`, of what
    this returns, does the same from another greenlet.

    Args:
        uri: as for `connect`.
        first_delay: the first retry comes after a random time from 0 to this many seconds. Default 5. After
            that it doubles each time, and the second half of it is random.
        max_delay: seconds that it grows to. Default 60. A server's Retry-After adds up to this many more.
        stable_after: a connection that has lasted this many seconds makes the delays begin anew. Default 10.
        max_retries: retries in a row after which the last error is raised. Default None: no limit.
        is_final: `callable(error)` that tells whether to raise an error instead of trying again; the error of
            an attempt, or how a WebSocket ended, a `ConnectionClosed`. Default: `is_final_error`.
        on_retry: `callable(error, delay)`, called before each delay with its seconds.
        options: as for `connect`.

    Raises:
        InvalidURI, TypeError, ValueError: at once, for arguments that are not possible.
    """
    return Reconnector(
        uri,
        first_delay=first_delay,
        max_delay=max_delay,
        stable_after=stable_after,
        max_retries=max_retries,
        is_final=is_final,
        on_retry=on_retry,
        options=options,
    )
