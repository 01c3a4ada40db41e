"""Masking keys: unpredictable, fresh for every frame, never shared with a child process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from geventws.protocol import keys


@pytest.fixture(autouse=True)
def empty_batch() -> Iterator[None]:
    """Begin and end with no key at hand."""
    keys._keys.clear()
    yield
    keys._keys.clear()


def test_a_key_has_four_octets() -> None:
    key = keys.next_key()
    assert type(key) is bytes
    assert len(key) == 4


def test_keys_are_the_octets_of_the_system_each_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def urandom(size: int) -> bytes:
        octets = b"".join((len(calls) << 24 | i).to_bytes(4, "big") for i in range(size // 4))
        calls.append(octets)
        return octets

    monkeypatch.setattr(os, "urandom", urandom)
    drawn = [keys.next_key() for _ in range(2048)]
    # Two batches of 4096 octets: nothing used twice, nothing left out.
    assert [len(octets) for octets in calls] == [4096, 4096]
    assert sorted(drawn) == sorted(octets[at : at + 4] for octets in calls for at in range(0, 4096, 4))


def test_keys_do_not_repeat_by_more_than_chance() -> None:
    # 10 000 of 2**32: 0.012 pairs are expected; 5 are not seen in the lifetime of the universe.
    assert len({keys.next_key() for _ in range(10_000)}) > 9_995


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_does_not_draw_from_its_parents_batch() -> None:
    keys.next_key()
    assert len(keys._keys) == 1023
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # No test machinery runs in the child, whatever happens.
        try:
            os.write(writer, str(len(keys._keys)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 100) == b"0"
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert len(keys._keys) == 1023
