"""What a server counts."""

from __future__ import annotations

import dataclasses

__all__ = ["Stats"]


@dataclasses.dataclass(slots=True)
class Stats:
    """Counts since the server was made.

    Attributes:
        accepted: TCP connections.
        opened: WebSockets.
        refused: upgrades and other requests that were answered with an HTTP status.
        failed_handshakes: connections that ended before a request was read: TLS errors, time-outs.
        closed_clean, closed_unclean: WebSockets that ended with a closing handshake, or without.
        write_timeouts: WebSockets that were aborted because of `write_timeout`.
        ping_timeouts: WebSockets that were ended because of `ping_timeout`.
        slow_consumers: how often a broadcast found a peer that does not keep up; of the WebSockets
            that ended.
        messages_received, messages_sent, bytes_received, bytes_sent: of the WebSockets that ended.
    """

    accepted: int = 0
    opened: int = 0
    refused: int = 0
    failed_handshakes: int = 0
    closed_clean: int = 0
    closed_unclean: int = 0
    write_timeouts: int = 0
    ping_timeouts: int = 0
    slow_consumers: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
