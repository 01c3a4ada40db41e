"""The closing handshake's payloads and phases (RFC 6455 sections 5.5.1, 7.1 and 7.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventws.exceptions import InvalidClose, InvalidPayload, InvalidState
from geventws.protocol.closing import MAX_REASON, TRANSITIONS, Close, Phase, Step, transition, truncate_reason

SENDABLE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
FORBIDDEN = [0, 1, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


class TestPayload:
    """RFC 6455 sections 5.5.1 and 7.4."""

    def test_without_a_code(self) -> None:
        assert Close.parse(b"") == Close(1005, "")
        assert Close(1005).serialize() == b""

    @pytest.mark.parametrize("payload", [b"\x00", b"\x03", b"\xff"])
    def test_one_byte_has_no_room_for_a_code(self, payload: bytes) -> None:
        with pytest.raises(InvalidClose, match="1 byte") as caught:
            Close.parse(payload)
        assert caught.value.kind == "close.payload"
        assert caught.value.close_code == 1002

    @pytest.mark.parametrize("code", SENDABLE)
    def test_codes_that_may_be_sent(self, code: int) -> None:
        payload = bytes((code >> 8, code & 0xFF)) + b"because"
        assert Close.parse(payload) == Close(code, "because")
        assert Close(code, "because").serialize() == payload

    @pytest.mark.parametrize("code", [*FORBIDDEN, 1005])
    def test_codes_that_may_not_be_received(self, code: int) -> None:
        with pytest.raises(InvalidClose, match=f"^close code {code} may not be sent$") as caught:
            Close.parse(bytes((code >> 8, code & 0xFF)))
        assert caught.value.kind == "close.code"
        assert caught.value.close_code == 1002

    @pytest.mark.parametrize("code", [-1, *FORBIDDEN, 65536])
    def test_codes_that_may_not_be_sent(self, code: int) -> None:
        with pytest.raises(ValueError, match=f"close code {code} may not be sent; possible are"):
            Close(code).serialize()

    @pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"ok\xed\xa0\x80", b"\xf4\x90\x80\x80"])
    def test_a_reason_that_is_not_utf8(self, reason: bytes) -> None:
        with pytest.raises(InvalidPayload, match="reason is not UTF-8") as caught:
            Close.parse(b"\x03\xe8" + reason)
        assert caught.value.kind == "close.reason"
        assert caught.value.close_code == 1007

    def test_the_code_is_checked_before_the_reason(self) -> None:
        with pytest.raises(InvalidClose):
            Close.parse(b"\x03\xed\xff")

    def test_a_reason_of_123_bytes_is_the_longest(self) -> None:
        assert MAX_REASON == 123
        assert Close(1000, "x" * 123).serialize() == b"\x03\xe8" + b"x" * 123
        assert len(Close(1000, "é" * 61).serialize()) == 124
        with pytest.raises(ValueError, match="at most 123 bytes in UTF-8, not 124"):
            Close(1000, "x" * 124).serialize()
        with pytest.raises(ValueError, match="at most 123 bytes in UTF-8, not 124"):
            Close(1000, "é" * 62).serialize()

    def test_a_reason_needs_a_code(self) -> None:
        with pytest.raises(ValueError, match="a close reason needs a close code"):
            Close(1005, "because").serialize()

    def test_a_lone_surrogate_in_a_reason(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            Close(1000, "\ud800").serialize()

    @given(st.sampled_from(SENDABLE), st.text(max_size=30))
    def test_round_trip(self, code: int, reason: str) -> None:
        assert Close.parse(Close(code, reason).serialize()) == Close(code, reason)


class TestText:
    """What people read."""

    @pytest.mark.parametrize(
        ("close", "text"),
        [
            (Close(1005), "a Close without a code"),
            (Close(1000), "1000 (normal closure)"),
            (Close(1001, "bye"), "1001 (going away) 'bye'"),
            (Close(1011, "a\nb"), "1011 (internal error) 'a\\nb'"),
            (Close(3000), "3000 (registered)"),
            (Close(3999), "3999 (registered)"),
            (Close(4000), "4000 (private use)"),
            (Close(4999, "x"), "4999 (private use) 'x'"),
        ],
    )
    def test_str(self, close: Close, text: str) -> None:
        assert str(close) == text


class TestTruncateReason:
    """RFC 6455 section 5.5: a control frame has 125 bytes."""

    @pytest.mark.parametrize(
        ("text", "cut"),
        [
            ("", ""),
            ("x" * 123, "x" * 123),
            ("x" * 124, "x" * 123),
            ("é" * 62, "é" * 61),
            ("x" + "é" * 62, "x" + "é" * 61),
            ("€" * 50, "€" * 41),
            ("𐍈" * 50, "𐍈" * 30),
            ("\ud800", "\\ud800"),
        ],
    )
    def test_cuts_between_code_points(self, text: str, cut: str) -> None:
        assert truncate_reason(text) == cut

    @given(st.text(st.characters(), max_size=200))
    def test_always_fits(self, text: str) -> None:
        cut = truncate_reason(text)
        assert Close.parse(Close(1011, cut).serialize()).reason == cut
        assert text.startswith(cut) or "\\" in cut


# What each step leads to; None: it is not possible. Rows are phases, columns steps.
TABLE = {
    #                      SEND_CLOSE         RECEIVE_CLOSE         FAIL          END
    Phase.OPEN:           (Phase.CLOSE_SENT, Phase.CLOSE_RECEIVED, Phase.FAILED, Phase.ENDED),
    Phase.CLOSE_SENT:     (None,             Phase.CLOSE_DONE,     Phase.FAILED, Phase.ENDED),
    Phase.CLOSE_RECEIVED: (Phase.CLOSE_DONE, None,                 Phase.FAILED, Phase.ENDED),
    Phase.CLOSE_DONE:     (None,             None,                 None,         Phase.ENDED),
    Phase.FAILED:         (None,             None,                 None,         Phase.ENDED),
    Phase.ENDED:          (None,             None,                 None,         None),
}  # fmt: skip
STEPS = (Step.SEND_CLOSE, Step.RECEIVE_CLOSE, Step.FAIL, Step.END)


class TestTransitions:
    """RFC 6455 section 7.1, each cell of the table."""

    def test_the_table_has_every_phase_and_step(self) -> None:
        assert set(TRANSITIONS) == set(TABLE) == set(Phase)
        assert set(STEPS) == set(Step)

    @pytest.mark.parametrize(
        ("phase", "step", "result"),
        [
            (phase, step, result)
            for phase, row in TABLE.items()
            for step, result in zip(STEPS, row, strict=True)
        ],
    )
    def test_cell(self, phase: Phase, step: Step, result: Phase | None) -> None:
        if result is not None:
            assert transition(phase, step) is result
            assert transition(int(phase), step) is result
        else:
            with pytest.raises(InvalidState, match=f"is not possible in phase {phase.name}$") as caught:
                transition(phase, step)
            assert caught.value.kind == "state.transition"
            assert str(caught.value).startswith(step.name.lower().replace("_", " "))

    def test_no_way_leads_back(self) -> None:
        assert all(result > phase for phase, row in TRANSITIONS.items() for result in row.values())
