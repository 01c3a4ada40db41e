"""Who is let in: limits on connections, in all, of one address, and of those that have asked for nothing yet.

Whoever is one too many gets 503. That takes a moment too, until the peer has ended TCP, and so there is
a limit on those that are refused at a time: beyond it they are only closed.

Compiled with admission.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import gevent

from .accepting import Acceptor
from .addresses import AddressCounter
from .endings import STOPPING
from .exceptions import InvalidHandshake
from .serving import Throttle, wake_reader
from .stats import Stats
from .wire import monotonic

if TYPE_CHECKING:
    from .options import Options
    from .protocol.http import Request

__all__ = ["MAX_REFUSING", "Admission"]

#: Connections that are being refused and do not count for `max_connections`.
MAX_REFUSING = 256

#: Seconds that a connection may wait for its request before want of descriptors drops it.
_PATIENCE = 1.0

#: Seconds between two log lines about the same shortage.
_LOG_INTERVAL = 10.0


class Admission(Acceptor):
    """Accepts connections and counts them."""

    def __init__(self, listener: Any, options: Options, *, backlog: int | None, spawn: Any) -> None:
        """Args: as for Acceptor."""
        self.stats = Stats()
        #: Greenlets that serve a connection; and those among them that only tell it to go away.
        self._serving = 0
        self._refusing = 0
        #: Sockets from which a request is awaited, the one that waits longest first, and since when.
        self._opening: dict[Any, float] = {}
        self._stopping = False
        self._full_log = Throttle(_LOG_INTERVAL)
        self._address_log = Throttle(_LOG_INTERVAL)
        self._dropped_log = Throttle(_LOG_INTERVAL)
        limit = options.max_connections_per_address
        self._addresses: AddressCounter | None = None
        if isinstance(limit, int):
            self._addresses = AddressCounter(limit, options.trusted_proxies)  # type: ignore[arg-type]
        Acceptor.__init__(self, listener, options, backlog=backlog, spawn=spawn)

    def _check_room(self) -> InvalidHandshake | None:
        """Return the refusal of a connection for which there is no room, this greenlet's own."""
        if self._stopping:
            return InvalidHandshake(STOPPING, status=503)
        limit = self.options.max_connections
        if limit is None:
            return None
        # Those that wait for a request have a limit of their own; those that are refused keep nobody out.
        others = len(self._opening) + min(self._refusing, MAX_REFUSING)
        if self._serving - others <= limit:
            return None
        self.stats.refused_full += 1
        self._full_log.log(logging.WARNING, "refusing connections: %d are open (max_connections)", limit)
        return InvalidHandshake(f"{limit} connections are open (max_connections)", status=503)

    # Of one address

    def _enter(self, key: str) -> InvalidHandshake | None:
        """Count a connection for its address; returns the refusal where there are too many."""
        assert self._addresses is not None
        if self._addresses.enter(key):
            return None
        limit = self.options.max_connections_per_address
        self.stats.refused_address += 1
        self._address_log.log(
            logging.WARNING,
            "refusing connections of %s: %d are open (max_connections_per_address); if that is a proxy, "
            "name it in trusted_proxies",
            key,
            limit,
        )
        return InvalidHandshake(
            f"{limit} connections of {key} are open (max_connections_per_address)", status=503
        )

    def _enter_client(self, request: Request) -> str:
        """Count a connection for the client behind a trusted proxy; returns its key.

        Raises:
            InvalidHandshake: there are too many.
        """
        assert self._addresses is not None
        key = self._addresses.client_key(request)
        if key:
            refusal = self._enter(key)
            if refusal is not None:
                raise refusal
        return key

    # Those that have asked for nothing yet

    def _begin_waiting(self, sock: Any) -> gevent.Timeout:
        """Start the deadline of `open_timeout`: one for all, not one for each read."""
        limit = self.options.max_handshakes
        if limit is not None and len(self._opening) >= limit:
            self._dropped_log.log(
                logging.WARNING,
                "dropping connections: no request has come on %d of them (max_handshakes)",
                limit,
            )
            self._drop_oldest()
        self._opening[sock] = monotonic()
        return gevent.Timeout.start_new(self.options.open_timeout)

    def _drop_oldest(self) -> None:
        """Have the connection that waits longest give up; its greenlet sees that it is not in the list."""
        oldest = next(iter(self._opening))
        del self._opening[oldest]
        self.stats.dropped_handshakes += 1
        wake_reader(oldest)

    def handle_shortage(self) -> None:
        """There are no descriptors: who holds one for a while and asks for nothing gives it back."""
        self.stats.accept_failures += 1
        patience = _PATIENCE
        timeout = self.options.open_timeout
        if timeout is not None:
            patience = min(patience, timeout / 2)
        before = monotonic() - patience
        for since in list(self._opening.values()):
            if since > before:
                break
            self._drop_oldest()
