"""How a WebSocket ended: why, by whom, the line of the log that tells of it, and the counts.

Compiled with endings.pxd, which sees into the connection; each ends once, so that it may cost a little.
"""

from __future__ import annotations

import logging
from typing import Any

from .protocol.closing import Close
from .protocol.connection import Connection
from .serving import shorten
from .stats import Stats
from .websocket import WebSocket
from .wire import monotonic

__all__ = ["STOPPING", "close_cause", "count_end", "log_end"]

#: Of its own, so that it can be turned on and off: one line for each WebSocket that ended, at INFO where a
#: limit was reached, a rule broken or a handler failed, at DEBUG otherwise.
logger = logging.getLogger("geventws.close")

#: The reason of the Close that a stopping server sends.
STOPPING = "the server is stopping"

#: Causes by the class of the violation that a connection was failed for.
_VIOLATIONS = {
    "RateExceeded": "rate_limit",
    "MessageTooBig": "too_big",
    "InvalidPayload": "invalid_payload",
}

#: Causes by code and reason of the Close that we sent first.
_OURS = {
    (1011, "internal error"): "handler_error",
    (1001, STOPPING): "shutdown",
    (1013, "too slow (write_limit)"): "slow_consumer",
}

#: Causes by what stands in the detail of a connection that was cut: options name themselves.
_DETAILS = (
    ("(write_timeout)", "write_timeout"),
    ("(ping_timeout)", "ping_timeout"),
    ("(close_timeout)", "close_timeout"),
    ("the peer reset", "peer_reset"),
    ("the peer ended", "peer_ended"),
    ("aborted here", "aborted"),
    ("an internal error", "internal_error"),
)

#: Causes that lie at the other end where no Close of ours was first.
_BY_PEER = frozenset({"peer_reset", "peer_ended", "network_error"})

#: What happens all day.
_USUAL = _BY_PEER | {"close", "shutdown", "aborted"}


def close_cause(ws: WebSocket) -> str:
    """Return why a WebSocket whose TCP is over has ended, one of `stats.CAUSES`."""
    core = ws._core
    error = core.error
    if error is not None:
        return _VIOLATIONS.get(type(error).__name__, "protocol_error")
    sent: Any = core.close_sent
    detail = ws._detail
    if detail == "an internal error":
        return "internal_error"
    if sent is not None and core.received_first is not True and sent.code in _OUR_CODES:
        cause = _OURS.get((sent.code, sent.reason))
        if cause is not None:
            return cause
    if not detail:
        return "close" if sent is not None or core.close_received is not None else "aborted"
    for words, cause in _DETAILS:
        if words in detail:
            return cause
    return "network_error"


_OUR_CODES = frozenset(code for code, _ in _OURS)


def count_end(stats: Stats, ws: WebSocket, cause: str) -> None:
    """Count a WebSocket that has ended."""
    core = ws._core
    close: Any = core.close_received
    # RFC 6455 section 7.1.5: 1006 where no Close came.
    if close is None:
        stats.closed_unclean += 1
    else:
        stats.closed_clean += 1
    stats.closes[cause] += 1
    if ws._transport.write_timed_out:
        stats.write_timeouts += 1
    if cause == "ping_timeout":
        stats.ping_timeouts += 1
    stats.slow_consumers += ws.times_slow
    stats.messages_received += ws.messages_received
    stats.messages_sent += ws.messages_sent
    stats.messages_discarded += ws.messages_discarded
    stats.bytes_received += ws._transport.bytes_received
    stats.bytes_sent += ws._transport.bytes_sent


def log_end(ws: WebSocket, cause: str) -> None:
    """Log the end of a WebSocket: one line, and its facts as attributes of the record.

    The record has `connection` (a number), `remote_address`, `path`, `closed_by` ("peer" or "here"),
    `close_code`, `close_reason`, `cause` (one of `stats.CAUSES`), `detail`, `clean` (both Closes went),
    `messages_received`, `messages_sent`, `bytes_received`, `bytes_sent`, and `duration` in seconds.
    """
    core: Connection = ws._core
    sent: Any = core.close_sent
    received: Any = core.close_received
    level = logging.DEBUG if cause in _USUAL else logging.INFO
    if not logger.isEnabledFor(level):
        return
    if sent is not None and core.received_first is not True:
        by, close = "here", sent
    elif received is not None:
        by, close = "peer", received
    else:
        by, close = "peer" if cause in _BY_PEER else "here", Close(1006)
    error = core.error
    detail = ws._detail or ("" if error is None else str(error))
    facts = {
        "connection": ws.id,
        "remote_address": ws.request.remote_address,
        "path": ws.request.path,
        "closed_by": by,
        "close_code": close.code,
        "close_reason": close.reason,
        "cause": cause,
        "detail": detail,
        "clean": sent is not None and received is not None,
        "messages_received": ws.messages_received,
        "messages_sent": ws.messages_sent,
        "bytes_received": ws._transport.bytes_received,
        "bytes_sent": ws._transport.bytes_sent,
        "duration": monotonic() - ws.opened_at,
    }
    # Reason and path are the peer's: escaped, so that they cannot make a line of their own.
    logger.log(
        level,
        "connection %d of %r on %a closed by %s: %d %a, %s%s; "
        "%d messages and %d bytes received, %d and %d sent, in %.3f s",
        ws.id,
        ws.request.remote_address,
        shorten(ws.request.path),
        by,
        close.code,
        close.reason,
        cause,
        f" ({ascii(detail)[1:-1]})" if detail else "",
        ws.messages_received,
        ws._transport.bytes_received,
        ws.messages_sent,
        ws._transport.bytes_sent,
        facts["duration"],
        extra=facts,
    )
