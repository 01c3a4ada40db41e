"""Switches, kills and the system's moods at random, at each point where a connection reads, writes or waits.

A copy of the package from source talks to itself over a pair of Unix sockets. Between its wire and the system
stands a seam: by a seeded generator it brings less than there is, takes less than it is given, says "not now"
to what could be done, and has greenlets killed or timed out at that very point. Greenlets switch at random
between their calls. What each side wrote is kept and read by wsproto: no frame may be torn or out of place.

Figures: `SEEDS` conversations here; `GEVENTWS_SWITCH_SEEDS=1000` runs as many (`tox -e fuzz` does).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import socket as std_socket
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from builds import pure_package
from opinions import of_wsproto, split_stream

SEEDS = int(os.environ.get("GEVENTWS_SWITCH_SEEDS", "40"))
PATIENCE = 30.0
#: Conversations for one test: so that a thousand seeds are not a thousand tests.
BATCH = 20

pytestmark = pytest.mark.deadline(300)


@pytest.fixture(scope="module")
def copy() -> Iterator[Any]:
    """The modules of a copy from source, in which the wire can be replaced."""
    with pure_package("geventws_seam") as name:
        yield SimpleNamespace(
            **{
                module.rpartition(".")[2]: importlib.import_module(f"{name}.{module}")
                for module in (
                    "exceptions",
                    "options",
                    "transport",
                    "websocket",
                    "protocol.connection",
                    "protocol.deflate",
                    "protocol.http",
                )
            }
        )


class Seam:
    """Stands between a copy of the package and the system.

    Attributes:
        written: what went out, by descriptor.
        victims: greenlets that may be killed at the next point.
        points: how many points there were.
    """

    def __init__(self, rng: random.Random, transport: Any) -> None:
        self.rng = rng
        self.written: dict[int, bytearray] = defaultdict(bytearray)
        self.victims: list[Any] = []
        self.killed: list[Any] = []
        self.points = 0
        self.mood = rng.choice((0.0, 0.1, 0.4))
        self._receive_into = transport.receive_into
        self._receive_block = transport.receive_block
        self._send_chunks = transport.send_chunks

    def point(self) -> None:
        """One of the points: here anything may happen to anybody else."""
        self.points += 1
        if self.victims and self.rng.random() < 0.01:
            victim = self.victims.pop(self.rng.randrange(len(self.victims)))
            if victim is not gevent.getcurrent():
                self.killed.append(victim)
                # One without seconds has no timer, which would have to be closed.
                error = self.rng.choice((gevent.GreenletExit(), gevent.Timeout()))
                victim.kill(error, block=False)

    def receive_into(self, descriptor: int, buffer: bytearray) -> int:
        self.point()
        if self.rng.random() < self.mood * 0.5:
            return -1
        if self.rng.random() < self.mood:
            few = bytearray(self.rng.choice((1, 2, 3, 7, 100)))
            count: int = self._receive_into(descriptor, few)
            buffer[: max(count, 0)] = few[: max(count, 0)]
            return count
        return int(self._receive_into(descriptor, buffer))

    def receive_block(self, descriptor: int, block: Any, count: int, buffer: bytearray) -> int:
        self.point()
        if self.rng.random() < self.mood * 0.5:
            return -1
        return int(self._receive_block(descriptor, block, count, buffer))

    def send_chunks(self, descriptor: int, chunks: list[Any], offset: int, last: bool = False) -> int:
        self.point()
        if self.rng.random() < self.mood * 0.5:
            return -1
        data = b"".join(chunk.encode() if isinstance(chunk, str) else bytes(chunk) for chunk in chunks)[
            offset:
        ]
        if self.rng.random() < self.mood:
            data = data[: self.rng.choice((1, 2, 3, 50, 5000))]
        count = int(self._send_chunks(descriptor, [data], 0, last))
        self.written[descriptor] += data[: max(count, 0)]
        return count


class Conversation:
    """Two sides that send, receive, ping and are killed; one of them ends it."""

    def __init__(self, copy: Any, seam: Seam, seed: int) -> None:
        self.copy = copy
        self.seam = seam
        self.rng = seam.rng
        self.seed = seed
        self.complete = seed % 2 == 0
        self.failures: list[BaseException] = []
        self.sent: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self.received: dict[str, list[bytes]] = {"server": [], "client": []}
        deflate = copy.deflate.DeflateParameters(True, True, 9, 9) if self.rng.random() < 0.3 else None
        sockets = self.sockets = dict(
            zip(("server", "client"), gevent.socket.socketpair(std_socket.AF_UNIX), strict=True)
        )
        self.descriptors = {side: sock.fileno() for side, sock in sockets.items()}
        options = copy.options.Options(
            max_queue=self.rng.choice((1, 2, 16)),
            write_limit=self.rng.choice((1, 1000, 65536)),
            close_timeout=PATIENCE,
        )
        self.deflated = deflate is not None
        self.sides = {
            side: copy.websocket.WebSocket(
                sock,
                copy.connection.Connection(client=side == "client", deflate=deflate),
                copy.http.Request("GET", "/", [("Host", "a")]),
                options,
            )
            for side, sock in sockets.items()
        }
        self.senders: list[Any] = []

    def pause(self) -> None:
        """Between two calls: let others run, or not."""
        if self.rng.random() < 0.4:
            gevent.sleep(0)

    def guard(self, function: Any, *arguments: Any) -> None:
        """Run a part of it; what it is allowed to raise is the end of it."""
        try:
            function(*arguments)
        except (self.copy.exceptions.ConnectionClosed, gevent.Timeout, gevent.GreenletExit):
            pass
        except BaseException as error:
            self.failures.append(error)

    def send(self, side: str, number: int) -> None:
        ws = self.sides[side]
        for count in range(self.rng.randrange(1, 8)):
            data = b"%d:%d " % (number, count) + bytes(self.rng.choice((0, 10, 126, 5000, 70_000)))
            self.pause()
            ws.send(data)
            self.sent[side, number].append(data)
            if self.rng.random() < 0.2:
                ws.ping(b"%d" % count)

    def receive(self, side: str) -> None:
        ws = self.sides[side]
        while True:
            self.pause()
            try:
                self.received[side].append(ws.receive(self.rng.choice((None, None, 0))))
            except TimeoutError:
                gevent.sleep(0)

    def run(self) -> None:
        receivers = [gevent.spawn(self.guard, self.receive, side) for side in self.sides]
        self.senders = [
            gevent.spawn(self.guard, self.send, side, number) for side in self.sides for number in range(3)
        ]
        self.seam.victims = self.rng.sample(self.senders, 2)
        if not self.complete:
            self.seam.victims += receivers
        ender = self.sides[self.rng.choice(("server", "client"))]
        with gevent.Timeout(PATIENCE, AssertionError(f"seed {self.seed} hangs")):
            if self.complete:
                gevent.joinall(self.senders)
                self.wait_for_all()
                ender.close()
            else:
                for _ in range(self.rng.randrange(200)):
                    gevent.sleep(0)
                ways = (ender.close, ender.abort, self.half_close)
                ending = gevent.spawn(self.guard, self.rng.choice(ways))
                self.pause()
                if self.rng.random() < 0.5:
                    ender.abort()
            for ws in self.sides.values():
                if not self.complete:
                    # Nobody may be left who receives; a queue that is full hides the peer's Close.
                    for each in self.sides.values():
                        each.discard_messages()
                    ws.close()
                    ending.join()
                assert ws.wait_closed(PATIENCE)
            gevent.joinall([*receivers, *self.senders])
        self.check()

    def half_close(self) -> None:
        # It may be closed by now.
        with contextlib.suppress(OSError):
            self.sockets["client"].shutdown(std_socket.SHUT_WR)

    def wait_for_all(self) -> None:
        """Until each side has received what the other sent."""
        while True:
            counts = {
                side: sum(len(sent) for (by, _), sent in self.sent.items() if by != side)
                for side in self.sides
            }
            if all(len(self.received[side]) >= count for side, count in counts.items()):
                return
            gevent.sleep(0)

    def check(self) -> None:
        assert not self.failures, (self.seed, self.failures)
        for side, received in self.received.items():
            other = "client" if side == "server" else "server"
            by_sender: dict[int, list[bytes]] = defaultdict(list)
            for message in received:
                by_sender[int(message.partition(b":")[0])].append(message)
            for number in range(3):
                found, sent = by_sender[number], self.sent[other, number]
                # In order, none twice; none lost where nobody cut it short. A killed `send` sent nothing.
                assert found == (sent if self.complete else sent[: len(found)]), (self.seed, side, number)
        for side, descriptor in self.descriptors.items():
            self.check_stream(side, bytes(self.seam.written[descriptor]))

    def check_stream(self, side: str, stream: bytes) -> None:
        """What a side wrote, read by somebody else."""
        frames = list(split_stream(stream))
        # There are no fragments here, so no Ping stands between those of a compressed message.
        events, verdict = of_wsproto(side == "server", frames, self.deflated)
        assert verdict is None, (self.seed, side, verdict)
        sent = [message for (by, _), messages in self.sent.items() if by == side for message in messages]
        messages = [event[1] for event in events if event[0] == "message"]
        assert set(messages) <= set(sent)
        if self.complete:
            assert sorted(messages) == sorted(sent)
            assert events[-1][0] == "close"


def converse(copy: Any, monkeypatch: pytest.MonkeyPatch, seed: int) -> Conversation:
    rng = random.Random(seed)
    seam = Seam(rng, copy.transport)
    with monkeypatch.context() as patch:
        for name in ("receive_into", "receive_block", "send_chunks"):
            patch.setattr(copy.transport, name, getattr(seam, name))
        conversation = Conversation(copy, seam, seed)
        conversation.run()
    return conversation


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_random_switches(copy: Any, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    kills = points = 0
    for seed in range(first, min(first + BATCH, SEEDS)):
        conversation = converse(copy, monkeypatch, seed)
        kills += len(conversation.seam.killed)
        points += conversation.seam.points
    assert points > 100
    assert kills > 0
