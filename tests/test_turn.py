"""Whose turn it is: order, portions, and what a single connection is spared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from geventws import IMPLEMENTATION
from geventws.turn import MEMORY_KEPT, Member, Turn

#: Of `geventws.turn`, where it is a number of C.
PORTION = 64


class Timer:
    """One of a `Loop`; it goes off when the test says so."""

    def __init__(self, *arguments: object, ref: bool) -> None:
        self.callback: Callable[[], None] | None = None
        self.ref = ref

    def start(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def close(self) -> None:
        self.callback = None


class Loop:
    """As much of a loop as a `Turn` uses; its turns are those of the test."""

    def __init__(self, default: bool = True) -> None:
        self.default = default
        self.iteration = 0
        self.callbacks: list[Callable[[], None]] = []
        self.timers: list[Timer] = []

    def timer(self, after: float, repeat: float, ref: bool) -> Timer:
        assert after == repeat == MEMORY_KEPT
        self.timers.append(Timer(ref=ref))
        return self.timers[-1]

    def run_callback(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def end_turn(self) -> None:
        """Run what stands behind the events, and begin the next turn."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        self.iteration += 1


class Connection(Member):
    """Notes what is done to it."""

    def __init__(self, turn: Turn, name: int, log: list[tuple[str, int]], error: str = "") -> None:
        self.turn, self.name, self.log, self.error = turn, name, log, error

    def serve(self) -> None:
        self.log.append(("read", self.name))
        if self.error == "serve":
            raise KeyboardInterrupt
        self.turn.write(self)

    def flush(self) -> None:
        self.log.append(("write", self.name))
        if self.error == "flush":
            raise KeyboardInterrupt


class Hub:
    """A loop, its `Turn`, and connections."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.turn = Turn(self.loop)
        self.log: list[tuple[str, int]] = []
        self._numbers: Iterator[int] = count()

    def connection(self, error: str = "") -> Connection:
        return Connection(self.turn, next(self._numbers), self.log, error)

    def taken(self) -> list[tuple[str, int]]:
        log, self.log[:] = list(self.log), []
        return log


@pytest.fixture
def hub() -> Hub:
    return Hub()


def names(log: list[tuple[str, int]], step: str) -> list[int]:
    return [name for done, name in log if done == step]


def test_a_single_connection_is_served_in_its_callback(hub: Hub) -> None:
    connection = hub.connection()
    for _ in range(3):
        hub.turn.add(connection)
        assert hub.taken() == [("read", 0), ("write", 0)]
        assert not hub.loop.callbacks
        hub.loop.end_turn()


def test_several_are_read_and_then_written(hub: Hub) -> None:
    first, second, third = (hub.connection() for _ in range(3))
    hub.turn.add(first)
    hub.turn.add(second)
    hub.turn.add(third)
    hub.loop.end_turn()
    # That more than one was ready is known from the second one on.
    assert hub.taken() == [("read", 0), ("write", 0), ("read", 1), ("read", 2), ("write", 1), ("write", 2)]
    for connection in (third, first):
        hub.turn.add(connection)
    assert hub.taken() == []
    hub.loop.end_turn()
    assert hub.taken() == [("read", 2), ("read", 0), ("write", 2), ("write", 0)]


def test_behind_a_turn_of_one_it_is_served_at_once_again(hub: Hub) -> None:
    connections = [hub.connection() for _ in range(3)]
    for connection in connections:
        hub.turn.add(connection)
    hub.loop.end_turn()
    hub.turn.add(connections[0])
    hub.loop.end_turn()
    hub.taken()
    hub.turn.add(connections[1])
    assert hub.taken() == [("read", 1), ("write", 1)]


@pytest.mark.parametrize("size", [2 * PORTION, 2 * PORTION + 1, 3 * PORTION, 1000])
def test_large_turns_are_served_in_portions_and_the_first_first(hub: Hub, size: int) -> None:
    connections = [hub.connection() for _ in range(size)]
    for _ in range(2):
        for connection in connections:
            hub.turn.add(connection)
        hub.loop.end_turn()
        log = hub.taken()
    order = list(range(size))
    portion = size
    if size > 2 * PORTION:
        # libev tells of the first last.
        order.reverse()
        portion = PORTION
    assert names(log, "read") == names(log, "write") == order
    for start in range(0, size, portion):
        part = log[2 * start : 2 * (start + portion)]
        half = len(part) // 2
        assert [step for step, _ in part] == ["read"] * half + ["write"] * half


def test_outside_a_turn_is_written_at_once(hub: Hub) -> None:
    hub.turn.write(hub.connection())
    assert hub.taken() == [("write", 0)]


@pytest.mark.parametrize("error", ["serve", "flush"])
def test_what_ends_the_process_leaves_nothing_unwritten(hub: Hub, error: str) -> None:
    connections = [hub.connection(), hub.connection(), hub.connection(error), hub.connection()]
    for connection in connections:
        hub.turn.add(connection)
    hub.taken()
    with pytest.raises(KeyboardInterrupt):
        hub.loop.end_turn()
    hub.loop.end_turn()
    written = names(hub.taken(), "write")
    assert written == ([1] if error == "serve" else [1, 2, 3])
    # It goes on: nothing is held for a turn that was not finished.
    hub.turn.add(connections[3])
    hub.loop.end_turn()
    assert hub.taken() == [("read", 3), ("write", 3)]


def test_memory_is_given_back_when_no_large_message_has_come_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[bool] = []
    loop = Loop()
    turn = Turn(loop)
    if IMPLEMENTATION == "pure":
        monkeypatch.setattr("geventws.turn.give_back", lambda: given.append(True))
    for _ in range(2):
        loop.timers.clear()
        given.clear()
        turn.note_large()
        turn.note_large()
        (timer,) = loop.timers
        assert timer.callback is not None
        # It keeps no program from ending.
        assert timer.ref is False
        timer.callback()
        turn.note_large()
        timer.callback()
        assert timer.callback is not None
        assert not given
        timer.callback()
        assert timer.callback is None
        assert given or IMPLEMENTATION == "compiled"


def test_no_timer_outlives_the_loop_of_another_thread() -> None:
    loop = Loop(default=False)
    Turn(loop).note_large()
    assert not loop.timers
