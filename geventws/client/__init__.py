"""The client: the same WebSocket, from the other side (RFC 6455 section 4.1)."""

from __future__ import annotations

from .connect import connect
from .reconnect import Reconnector, connect_forever, is_final_error

__all__ = ["Reconnector", "connect", "connect_forever", "is_final_error"]
