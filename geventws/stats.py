"""What a server counts."""

from __future__ import annotations

import dataclasses

__all__ = ["CAUSES", "Stats"]

#: Why a WebSocket ended (endings.py says it of each).
CAUSES = (
    "close",
    "shutdown",
    "handler_error",
    "slow_consumer",
    "protocol_error",
    "invalid_payload",
    "too_big",
    "rate_limit",
    "ping_timeout",
    "write_timeout",
    "close_timeout",
    "peer_ended",
    "peer_reset",
    "network_error",
    "aborted",
    "internal_error",
)


@dataclasses.dataclass(slots=True)
class Stats:
    """Counts since the server was made; they only grow.

    Attributes:
        accepted: TCP connections.
        accept_failures: attempts to accept one for which there were no descriptors or no memory.
        opened: WebSockets.
        refused: upgrades and other requests that were answered with an HTTP status; of these
        refused_full: because of `max_connections`.
        refused_address: because of `max_connections_per_address`.
        refusals: all of them by status.
        unanswered: connections that would have been refused, and were only closed: too many were being
            refused already.
        failed_handshakes: connections that ended before a request was read: TLS errors, time-outs; of these
        open_timeouts: because of `open_timeout`.
        dropped_handshakes: connections that had to make room because of `max_handshakes`, or because there
            were no descriptors left.
        closed_clean, closed_unclean: WebSockets that ended with a closing handshake, or without.
        closes: why WebSockets ended, by the names in `CAUSES`.
        write_timeouts: WebSockets that were aborted because of `write_timeout`.
        ping_timeouts: WebSockets that were ended because of `ping_timeout`.
        slow_consumers: how often a broadcast found a peer that does not keep up; of the WebSockets
            that ended.
        messages_received, messages_sent, messages_discarded, bytes_received, bytes_sent: of the WebSockets
            that ended.
    """

    accepted: int = 0
    accept_failures: int = 0
    opened: int = 0
    refused: int = 0
    refused_full: int = 0
    refused_address: int = 0
    refusals: dict[int, int] = dataclasses.field(default_factory=dict)
    unanswered: int = 0
    failed_handshakes: int = 0
    open_timeouts: int = 0
    dropped_handshakes: int = 0
    closed_clean: int = 0
    closed_unclean: int = 0
    closes: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    write_timeouts: int = 0
    ping_timeouts: int = 0
    slow_consumers: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    messages_discarded: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
