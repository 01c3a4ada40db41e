"""The closing handshake: the Close frame's payload and the table of what may follow what.

RFC 6455 sections 5.5.1, 7.1 and 7.4.

Rules of this file: a phase changes only through `TRANSITIONS`; what is not in the table is not
possible; code and reason of a connection are never stored but derived from the two Close frames.
"""

from __future__ import annotations

import dataclasses
import enum

from ..exceptions import InvalidClose, InvalidPayload, InvalidState
from .opcodes import CloseCode, is_sendable_close_code

__all__ = [
    "MAX_REASON",
    "TRANSITIONS",
    "Close",
    "Phase",
    "Step",
    "make_close",
    "transition",
    "truncate_reason",
]

#: Bytes of a close reason: a control frame's 125 (RFC 6455 section 5.5) less two for the code.
MAX_REASON = 123

_NAMES = {code.value: code.name.lower().replace("_", " ") for code in CloseCode}


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """What a Close frame says.

    Attributes:
        code: the close code; 1005 where the frame has none.
        reason: up to 123 bytes of UTF-8.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if self.code == CloseCode.NO_STATUS_RCVD:
            return "a Close without a code"
        name = _NAMES.get(self.code)
        if name is None:
            name = "registered" if 3000 <= self.code < 4000 else "private use"
        reason = f" {self.reason!r}" if self.reason else ""
        return f"{self.code} ({name}){reason}"

    @classmethod
    def parse(cls, payload: bytes) -> Close:
        """Read a Close frame's payload.

        Raises:
            InvalidClose: for a single byte, or a code that may not be sent.
            InvalidPayload: for a reason that is not UTF-8.
        """
        known = _KNOWN.get(payload)
        if known is not None:
            return known
        # RFC 6455 section 5.5.1: if there is a body, its first two bytes are the code.
        if len(payload) == 1:
            raise InvalidClose("a Close payload of 1 byte has no room for a code", "close.payload")
        code = int.from_bytes(payload[:2], "big")
        if not is_sendable_close_code(code):
            raise InvalidClose(f"close code {code} may not be sent", "close.code")
        try:
            return cls(code, payload[2:].decode())
        except UnicodeDecodeError:
            # RFC 6455 section 8.1.
            raise InvalidPayload("the close reason is not UTF-8", "close.reason") from None

    def serialize(self) -> bytes:
        """Return the payload of the Close frame.

        Raises:
            ValueError: for a code that may not be sent, a reason without a code or above 123 bytes.
        """
        reason = self.reason.encode()
        if self.code == CloseCode.NO_STATUS_RCVD:
            if reason:
                raise ValueError("a close reason needs a close code")
            return b""
        if not is_sendable_close_code(self.code):
            raise ValueError(
                f"close code {self.code} may not be sent; possible are 1000-1003, 1007-1014 and 3000-4999"
            )
        if len(reason) > MAX_REASON:
            raise ValueError(f"a close reason has at most {MAX_REASON} bytes in UTF-8, not {len(reason)}")
        return self.code.to_bytes(2, "big") + reason


#: What most Close frames say, by payload and by code: made once, for they cannot change.
_KNOWN = {
    close.serialize(): close
    for close in (Close(code.value) for code in CloseCode)
    if close.code == CloseCode.NO_STATUS_RCVD or is_sendable_close_code(close.code)
}
_PAYLOADS = {close.code: (close, payload) for payload, close in _KNOWN.items()}


def make_close(code: int, reason: str) -> tuple[Close, bytes]:
    """Return a `Close` and the payload of its frame.

    Raises:
        ValueError: as `Close.serialize`.
    """
    known = None if reason else _PAYLOADS.get(code)
    if known is not None:
        return known
    close = Close(code, reason)
    return close, close.serialize()


def truncate_reason(text: str) -> str:
    """Cut a reason of ours to what a Close frame holds, between two code points."""
    return text.encode("utf-8", "backslashreplace")[:MAX_REASON].decode("utf-8", "ignore")


class Phase(enum.IntEnum):
    """How far the closing handshake is; RFC 6455 calls all but the first and last CLOSING."""

    OPEN = 0
    #: We sent a Close and wait for the peer's (RFC 6455 section 7.1.2).
    CLOSE_SENT = 1
    #: The peer sent one, which must still be answered.
    CLOSE_RECEIVED = 2
    #: Both have: the server ends TCP now.
    CLOSE_DONE = 3
    #: The connection was failed: nothing that comes is looked at (RFC 6455 section 7.1.7).
    FAILED = 4
    #: TCP is over.
    ENDED = 5


class Step(enum.IntEnum):
    """What moves a connection from one phase to the next."""

    SEND_CLOSE = 0
    RECEIVE_CLOSE = 1
    FAIL = 2
    END = 3


TRANSITIONS: dict[int, dict[Step, Phase]] = {
    Phase.OPEN: {
        Step.SEND_CLOSE: Phase.CLOSE_SENT,
        Step.RECEIVE_CLOSE: Phase.CLOSE_RECEIVED,
        Step.FAIL: Phase.FAILED,
        Step.END: Phase.ENDED,
    },
    Phase.CLOSE_SENT: {
        Step.RECEIVE_CLOSE: Phase.CLOSE_DONE,
        Step.FAIL: Phase.FAILED,
        Step.END: Phase.ENDED,
    },
    Phase.CLOSE_RECEIVED: {
        Step.SEND_CLOSE: Phase.CLOSE_DONE,
        Step.FAIL: Phase.FAILED,
        Step.END: Phase.ENDED,
    },
    Phase.CLOSE_DONE: {Step.END: Phase.ENDED},
    Phase.FAILED: {Step.END: Phase.ENDED},
    Phase.ENDED: {},
}


def transition(phase: Phase | int, step: Step) -> Phase:
    """Return the phase that `step` leads to.

    Raises:
        InvalidState: if the table has no such step.
    """
    try:
        return TRANSITIONS[phase][step]
    except KeyError:
        raise InvalidState(
            f"{step.name.lower().replace('_', ' ')} is not possible in phase {Phase(phase).name}",
            "state.transition",
        ) from None
