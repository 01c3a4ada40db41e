"""Masking keys: unpredictable, fresh for every frame, never shared with a child process."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from geventws.protocol import keys


@pytest.fixture(autouse=True)
def empty_batch() -> Iterator[None]:
    """Begin and end with no key at hand."""
    keys.drop_keys()
    yield
    keys.drop_keys()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was drawn from the system's entropy, where all keys are different for once."""
    drawn: list[bytes] = []
    numbers = itertools.count()

    def urandom(size: int) -> bytes:
        number = next(numbers)
        octets = b"".join((number << 24 | i).to_bytes(4, "big") for i in range(size // 4))
        drawn.append(octets)
        return octets

    monkeypatch.setattr(os, "urandom", urandom)
    return drawn


def test_a_key_has_four_octets() -> None:
    key = keys.next_key()
    assert type(key) is bytes
    assert len(key) == 4


def test_keys_are_the_octets_of_the_system_each_used_once(calls: list[bytes]) -> None:
    drawn = [keys.next_key() for _ in range(2048)]
    # Two batches of 4096 octets: nothing used twice, nothing left out.
    assert [len(octets) for octets in calls] == [4096, 4096]
    assert b"".join(drawn) == b"".join(calls)
    assert keys.count_keys() == 0


def test_an_error_of_the_system_gives_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(size: int) -> bytes:
        raise OSError("no entropy")

    with monkeypatch.context() as patched:
        patched.setattr(os, "urandom", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="no entropy"):
                keys.next_key()
        assert keys.count_keys() == 0
    assert len(keys.next_key()) == 4


def test_keys_do_not_repeat_by_more_than_chance() -> None:
    # 10 000 of 2**32: 0.012 pairs are expected; 5 are not seen in the lifetime of the universe.
    assert len({keys.next_key() for _ in range(10_000)}) > 9_995


@pytest.mark.usefixtures("calls")
def test_threads_never_draw_the_same_key() -> None:
    interval = sys.getswitchinterval()
    drawn: list[list[bytes]] = [[] for _ in range(4)]

    def draw(into: list[bytes]) -> None:
        into += [keys.next_key() for _ in range(5000)]

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=draw, args=(into,)) for into in drawn]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    every = [key for into in drawn for key in into]
    assert len(every) == 20_000
    assert len(set(every)) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_does_not_draw_from_its_parents_batch() -> None:
    keys.next_key()
    assert keys.count_keys() == 1023
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # No test machinery runs in the child, whatever happens.
        try:
            os.write(writer, str(keys.count_keys()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 100) == b"0"
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert keys.count_keys() == 1023
