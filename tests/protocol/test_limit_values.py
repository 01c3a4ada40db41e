"""What a limit of the protocol may be."""

from __future__ import annotations

import pytest

from geventws.protocol.connection import Connection, Event


@pytest.mark.parametrize("name", ["max_message_size", "max_fragments"])
class TestLimitsThatAreNone:
    """What 64 bits cannot count is refused by name, on both builds alike."""

    @pytest.mark.parametrize("value", [0, -1, 2**60 + 1, 2**63 - 1, 2**63, 2**64, 10**30])
    def test_refused(self, name: str, value: int) -> None:
        with pytest.raises(ValueError, match=r"a limit is a number from 1 to 2\*\*60, or None, not"):
            Connection(**{name: value})

    @pytest.mark.parametrize("value", [1, 2**60, None])
    def test_possible(self, name: str, value: int | None) -> None:
        connection = Connection(**{name: value})
        # A frame that claims 2**63-1 bytes.
        connection.receive_data(b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4))
        event = connection.next_event()
        if name == "max_message_size" and value is not None:
            assert event == Event.FAILED
        else:
            assert event == (Event.FAILED if name == "max_fragments" else Event.NEED_DATA)
