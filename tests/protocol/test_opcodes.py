"""The numbers of RFC 6455 sections 11.7 and 11.8."""

from __future__ import annotations

import pytest

from geventws.protocol.opcodes import CloseCode, Opcode, is_sendable_close_code


def test_opcodes_are_those_of_section_11_8() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0x0,
        "TEXT": 0x1,
        "BINARY": 0x2,
        "CLOSE": 0x8,
        "PING": 0x9,
        "PONG": 0xA,
    }


def test_close_codes_are_those_of_the_registry() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


SENDABLE = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


@pytest.mark.parametrize(
    "codes", [range(1000), range(1000, 1100), range(1100, 3000), range(3000, 5000), range(5000, 65536)]
)
def test_every_code_of_16_bits_may_be_sent_or_not(codes: range) -> None:
    assert {code for code in codes if is_sendable_close_code(code)} == SENDABLE & set(codes)
