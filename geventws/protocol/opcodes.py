"""The numbers of RFC 6455: opcodes (section 11.8) and close codes (section 11.7)."""

from __future__ import annotations

import enum

__all__ = ["CloseCode", "Opcode", "is_sendable_close_code"]


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455 section 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Why a connection was closed (the IANA registry of RFC 6455 section 11.7)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


def is_sendable_close_code(code: int) -> bool:
    """Tell whether a close code may stand in a Close frame (RFC 6455 section 7.4).

    1004 is reserved; 1005, 1006 and 1015 describe a connection and are never sent
    (section 7.4.1). 3000-3999 are registered by libraries, 4000-4999 are private.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
