"""Memory of ended greenlets: kept up to a limit, and good for the next ones."""

from __future__ import annotations

import sys

import gevent
from gevent.event import Event
from support import PATIENCE

from geventws.stacks import MAX_KEPT, count_kept, keep_stacks


def run_at_once(count: int) -> None:
    """Have that many greenlets run Python at a time, and end."""
    go_on = Event()
    done = []

    def work(number: int) -> None:
        go_on.wait()
        done.append(number)

    greenlets = [gevent.spawn(work, number) for number in range(count)]
    gevent.sleep(0)
    go_on.set()
    gevent.joinall(greenlets, timeout=PATIENCE)
    assert sorted(done) == list(range(count))


def test_it_may_be_asked_for_twice() -> None:
    keep_stacks()
    keep_stacks()
    run_at_once(3)


def test_as_many_as_the_limit_says_and_they_are_used_again(compiled_only: None) -> None:
    keep_stacks()
    run_at_once(MAX_KEPT + 20)
    # Before 3.11 frames have no memory of this kind.
    most = MAX_KEPT if sys.version_info >= (3, 11) else 0
    assert count_kept() == most
    go_on = Event()

    def work() -> None:
        go_on.wait()

    greenlets = [gevent.spawn(work) for _ in range(10)]
    gevent.sleep(0)
    assert count_kept() <= max(most - 10, 0)
    go_on.set()
    gevent.joinall(greenlets, timeout=PATIENCE)
    del greenlets
    assert count_kept() == most


def test_in_the_pure_build_there_is_none(pure_only: None) -> None:
    keep_stacks()
    run_at_once(3)
    assert count_kept() == 0
