"""Kills and time-outs at random moments of `send`, `ping` and `close`: the peer sees no violation, ever.

Figures: 200 interruptions that reach a waiting call, for each variant; with `--interruptions 10000`, or in
`tox -e attacks`, so many in all.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
import pytest
from reader import VARIANTS, Reader, check, make, options_of
from support import PATIENCE, opened

from geventws.exceptions import ConnectionClosed
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


class Victims:
    """Greenlets that call something of a WebSocket, and are interrupted in the middle of it.

    Attributes:
        reached: how many interruptions have found a greenlet inside its call, by name of the call.
        completed: messages whose `send` came back.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0
        self._running: list[gevent.Greenlet] = []
        self._begun: list[gevent.Greenlet] = []
        self.reached = {"send": 0, "ping": 0, "close": 0}
        self.completed: set[tuple[int, int]] = set()

    def spawn(self, ws: WebSocket, call: str) -> None:
        """Let one more begin."""
        self._number += 1
        self._running.append(gevent.spawn(self._live, ws, call, self._number))

    def _live(self, ws: WebSocket, call: str, number: int) -> None:
        inside = False
        # Whoever has not had its first turn would only die before it.
        self._begun.append(gevent.getcurrent())
        try:
            # Half of them bring a time-out of their own.
            with gevent.Timeout(self._rng.choice((None, 0, 0.001, 0.002))):
                inside = True
                if call == "send":
                    name = divmod(number, 1000)
                    ws.send(make(*name, self._rng, 15))
                    self.completed.add(name)
                elif call == "ping":
                    ws.ping(b"%d" % number).wait()
                else:
                    ws.close(1000, "enough")
                inside = False
        except ConnectionClosed:
            return
        except (gevent.GreenletExit, gevent.Timeout):
            self.reached[call] += inside

    def interrupt(self, count: int) -> None:
        """Kill some, or let a time-out reach them."""
        self._begun = [one for one in self._begun if not one.dead]
        for victim in self._rng.sample(self._begun, min(count, len(self._begun))):
            if self._rng.random() < 0.5:
                victim.kill(block=False)
            else:
                victim.kill(gevent.Timeout(), block=False)

    def count(self) -> int:
        """How many run."""
        self._running = [one for one in self._running if not one.dead]
        return len(self._running)

    def join(self) -> None:
        """Wait for those that were left alone."""
        gevent.joinall(self._running, PATIENCE, raise_error=True)
        assert all(one.dead for one in self._running)


def one_connection(variant: str, rng: random.Random) -> dict[str, int]:
    """Interrupt on one connection, up to its close and in it; returns how many were reached."""
    victims = Victims(rng)
    with opened(small=True, write_limit=20_000, close_timeout=PATIENCE, **options_of(variant)) as session:
        reader = Reader(session.peer, variant, rng, 0.001)
        reading = gevent.spawn(reader.run)
        ws = session.ws

        def turn(calls: tuple[str, ...], most: int) -> None:
            while victims.count() < most:
                victims.spawn(ws, rng.choice(calls))
            for _ in range(rng.randrange(6)):
                gevent.sleep(rng.choice((0, 0, 0.001)))
            victims.interrupt(3)
            gevent.sleep(0)

        for _ in range(rng.randrange(5, 40)):
            turn(("send", "send", "send", "ping"), 12)
        # Then several close at once, among those that still send.
        for _ in range(rng.randrange(1, 4)):
            turn(("close", "send", "close"), 16)
        try:
            ws.close()
        except ConnectionClosed:
            pass
        victims.join()
        reading.get(timeout=PATIENCE)
        assert reader.end == "end"
        assert reader.close == 1000
        assert ws.wait_closed(PATIENCE)
        arrived = [check(message) for message in reader.messages]
        assert len(arrived) == len(set(arrived)), "something arrived twice"
        assert victims.completed == set(arrived), "what was not interrupted arrives, and nothing else"
    return victims.reached


@pytest.mark.deadline(900)
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("variant", VARIANTS)
def test_interruptions_of_everything_that_sends(variant: str, request: pytest.FixtureRequest) -> None:
    in_all: Any = request.config.getoption("--interruptions")
    wanted = 200 if in_all is None else in_all // len(VARIANTS)
    rng = random.Random(variant)
    reached = {"send": 0, "ping": 0, "close": 0}
    while sum(reached.values()) < wanted or not min(reached.values()):
        for call, count in one_connection(variant, rng).items():
            reached[call] += count
    print(f"interrupted: {reached}")
