"""The compiled and the pure protocol do the same with the same bytes, and a difference would be noticed.

Ten thousand random conversations with both builds: whole, damaged and cut streams, both roles, with and
without compression, different limits, our own sends in between. See streams.py for what is compared.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from builds import Build, Edit, build_of, is_compiled, pure_package
from streams import describe, difference, random_script, record

BATCHES = 10
BATCH = 1000


def test_the_two_are_what_they_are_called(compiled: Build, pure: Build) -> None:
    assert is_compiled(compiled.connection)
    assert not is_compiled(pure.connection)
    assert compiled.connection.Connection is not pure.connection.Connection
    # Ordinary modules are two of a kind as well: no fact is shared.
    assert compiled.keys is not pure.keys
    assert compiled.exceptions.InvalidFrame is not pure.exceptions.InvalidFrame


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_conversations(compiled: Build, pure: Build, batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        found = difference(compiled, pure, seed)
        assert found is None, found


def test_the_conversations_go_everywhere() -> None:
    """What the scripts do not reach, they do not compare."""
    build = build_of("geventws")
    events: dict[Any, int] = {}
    kinds: dict[Any, int] = {}
    outcomes: dict[Any, int] = {}
    for seed in range(2000):
        script = random_script(random.Random(seed))
        *entries, state = record(build, script)
        for outcome, _, *_ in entries:
            if isinstance(outcome, list):
                for event in outcome:
                    number = event[0] if isinstance(event, tuple) else event
                    events[number] = events.get(number, 0) + 1
            elif outcome is not None:
                outcomes[outcome[0]] = outcomes.get(outcome[0], 0) + 1
        if state[4] is not None:
            kinds[state[4][1]] = kinds.get(state[4][1], 0) + 1
    assert min(events.get(number, 0) for number in (1, 2, 3, 4)) >= 100, events
    assert set(kinds) >= {
        "frame.reserved_bits",
        "frame.opcode",
        "frame.masked",
        "frame.unmasked",
        "frame.control_length",
        "frame.control_fragmented",
        "frame.length",
        "frame.continuation",
        "message.size",
        "message.fragments",
        "payload.utf8",
        "payload.deflate",
        "close.payload",
        "close.code",
        "close.reason",
        "own",
    }
    assert set(outcomes) >= {
        "ConnectionClosedError",
        "ConnectionClosedOK",
        "InvalidState",
        "UnicodeEncodeError",
        "ValueError",
    }


EDITS = [
    Edit("protocol.masking", "if length < 126:", "if length <= 126:"),
    Edit("protocol.masking", "if length < 65536:", "if length <= 65536:"),
    Edit("protocol.masking", "key = key[phase:] + key[:phase]", "pass"),
    Edit("protocol.masking", "+ key + _xor(data, key, 0)", "+ key + _xor(data, key, 1)"),
    Edit("protocol.frames", "if first & 0x30:", "if first & 0x10:"),
    Edit("protocol.frames", "if opcode > 0xA or 2 < opcode < 8:", "if opcode > 0xB or 2 < opcode < 8:"),
    Edit(
        "protocol.frames",
        "if (second & 0x80 != 0) != self.masked:",
        "if second & 0x80 == 0 and self.masked:",
    ),
    Edit("protocol.frames", "if length > 125:", "if length > 126:"),
    Edit("protocol.frames", "if not first & 0x80:", "if False:"),
    Edit("protocol.frames", "if first & 0x40:", "if False:"),
    Edit("protocol.frames", "if length < 126:", "if length < 125:"),
    Edit("protocol.frames", "if length < 65536:", "if length < 256:"),
    Edit("protocol.frames", "if buffer[position + 2] & 0x80:", "if False:"),
    Edit(
        "protocol.frames",
        "= unmask(self._buffer, start, start + count, self._key, self._phase())",
        "= unmask(self._buffer, start, start + count, self._key, 0)",
    ),
    Edit(
        "protocol.frames",
        "append_masked(self._buffer, start, start + count, self._key, self._phase())",
        "append_masked(self._buffer, start, start + count, self._key, 0)",
    ),
    Edit(
        "protocol.frames",
        "block.commit(count, self._key, self._phase())",
        "block.commit(count, self._key, 0)",
    ),
    Edit(
        "protocol.frames",
        "return (self.length - self.remaining) & 3",
        "return (self.length - self.remaining) & 1",
    ),
    Edit("protocol.messages", "self._fragments += 1", "self._fragments += frame.length > 0"),
    Edit("protocol.messages", "if self._fragments > self._max_fragments >= 0:", "if self._fragments > 4096:"),
    Edit(
        "protocol.messages",
        "if frame.length > limit - self._wire_size:",
        "if frame.length >= limit - self._wire_size:",
    ),
    Edit("protocol.messages", "self._wire_size += frame.length", "self._wire_size = frame.length"),
    Edit("protocol.messages", "self.expect_continuation = not frame.fin", "self.expect_continuation = False"),
    Edit("protocol.messages", "if frame.rsv1 and self._inflater is None:", "if False:"),
    Edit("protocol.messages", "self._compressed or frame.remaining", "frame.remaining"),
    Edit("protocol.messages", "block.append(inflater.partial)", "pass"),
    Edit("protocol.block", "if left == 2 and self._data[self._checked] == 0xED", "if False"),
    Edit("protocol.block", "self._checked += codecs", "self._checked = codecs"),
    Edit("protocol.messages", "inflater.finish()", "pass"),
    Edit("protocol.connection", "elif self.close_sent is None:", "else:"),
    Edit(
        "protocol.connection", "self._held_ping = payload\n", "self._held_ping = self._held_ping or payload\n"
    ),
    Edit(
        "protocol.connection",
        "if payload is not None and self.phase == 0:",
        "if payload and self.phase == 0:",
    ),
    Edit(
        "protocol.connection", "self.received_first = self.close_sent is None", "self.received_first = True"
    ),
    Edit(
        "protocol.connection",
        "compress or len(raw) >= self._threshold",
        "compress or len(raw) > self._threshold",
    ),
    Edit("protocol.connection", "                first |= 0x40\n", "                pass\n"),
    Edit("protocol.connection", "if len(payload) > 125:", "if len(payload) > 126:"),
    Edit(
        "protocol.connection",
        "self.out_size += len(frame)",
        "self.out_size = len(frame)",
    ),
    Edit(
        "protocol.connection",
        "if self.phase <= self.readable:\n                        self.message",
        "if True:\n                        self.message",
    ),
    Edit("protocol.connection", "if self.error is None:", "if True:"),
    Edit("protocol.connection", "next_key() if self._client else None", "None"),
]


@pytest.mark.parametrize(
    "edit", EDITS, ids=lambda edit: f"{edit.module.split('.')[-1]}: {edit.new.strip()[:40]}"
)
def test_one_changed_line_is_noticed(edit: Edit) -> None:
    build = build_of("geventws")
    with pure_package("geventws_edited", edit) as name:
        edited = build_of(name)
        # Some of these make it raise what it never should; that is a difference, too.
        assert any(difference(build, edited, seed) is not None for seed in range(BATCH * BATCHES))


def test_an_unchanged_copy_is_no_different() -> None:
    build = build_of("geventws")
    with pure_package("geventws_copy") as name:
        copy = build_of(name)
        assert all(difference(build, copy, seed) is None for seed in range(200))


class TestTypes:
    """What is neither bytes nor str, and numbers at the edge of what C counts with."""

    CALLS: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("receive_data", (None,)),
        ("receive_data", ("text",)),
        ("receive_data", (bytearray(b"\x81\x85"),)),
        ("receive_data", (memoryview(b"\x81\x85"),)),
        ("send", (None,)),
        ("send", (5,)),
        ("send", (bytearray(b"x"),)),
        ("send", (memoryview(b"x"),)),
        ("send", (["x"],)),
        ("send", ()),
        ("send", ("x", None, None)),
        ("send_ping", (b"x" * 126,)),
        ("send_ping", (None,)),
        ("send_close", (1000, None)),
        ("send_close", (None,)),
        ("send_close", (70_000,)),
        ("send_close", (-1,)),
        ("send_close", ("1000",)),
        ("no_such_method", ()),
    )

    @pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}{call[1]!r:.30}")
    @pytest.mark.parametrize("client", [False, True])
    def test_calls(self, compiled: Build, pure: Build, call: Any, client: bool) -> None:
        name, arguments = call
        outcomes = []
        for build in (compiled, pure):
            connection = build.connection.Connection(client=client)
            try:
                getattr(connection, name)(*arguments)
                outcome: Any = [chunk[:1] for chunk in connection.out]
            except Exception as error:
                # Python words the errors about arguments, and not the same way.
                outcome = (
                    type(error).__name__
                    if isinstance(error, (TypeError, AttributeError))
                    else describe(error)
                )
            outcomes.append((outcome, int(connection.phase), connection.out_size))
        assert outcomes[0] == outcomes[1]

    @pytest.mark.parametrize("size", [1, 2**31, 2**32, 2**60 - 1])
    def test_limits_that_options_allow(self, compiled: Build, pure: Build, size: int) -> None:
        for build in (compiled, pure):
            connection = build.connection.Connection(max_message_size=size, max_fragments=size)
            connection.receive_data(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00")
            assert connection.next_event() == 4
            connection.next_event()
            assert str(connection.error) == (
                f"a message of {2**63 - 1} bytes exceeds {size} (max_message_size)"
            )

    def test_positional_options_are_refused(self, compiled: Build, pure: Build) -> None:
        for build in (compiled, pure):
            with pytest.raises(TypeError):
                build.connection.Connection(True)
            with pytest.raises(TypeError):
                build.connection.Connection(no_such_option=1)

    def test_attributes_of_your_own_are_refused(self, compiled: Build, pure: Build) -> None:
        for build in (compiled, pure):
            with pytest.raises(AttributeError):
                build.connection.Connection().attribute = 1
