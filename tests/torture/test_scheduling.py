"""Random scripts on both sides, cut and interleaved at random: the facts are those of a calm run.

Figures: 60 seeds, for each some 100 frames in random pieces to a handler that receives, sends, pings and
sleeps at random, with the loop made to turn at random places between.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
import pytest
from support import PATIENCE, binary, close, frame, opened, ping, text

from geventws.exceptions import ConnectionClosedOK
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def script(rng: random.Random) -> tuple[list[bytes], list[Any], list[bytes]]:
    """Frames that a peer sends, the messages in them, and the payloads of the Pings."""
    frames: list[bytes] = []
    messages: list[Any] = []
    pings: list[bytes] = []
    for number in range(60):
        kind = rng.randrange(5)
        if kind == 0:
            message: Any = f"text {number} " + "\N{SNOWMAN}" * rng.choice((0, 1, 40, 3000))
            frames.append(text(message))
            messages.append(message)
        elif kind == 1:
            message = b"%d " % number + rng.randbytes(rng.choice((0, 1, 125, 126, 70_000)))
            frames.append(binary(message))
            messages.append(message)
        elif kind == 2:
            parts = [rng.randbytes(rng.choice((0, 1, 500))) for _ in range(rng.randrange(2, 6))]
            for index, part in enumerate(parts):
                first = (0x80 if index == len(parts) - 1 else 0) | (0 if index else 2)
                frames.append(frame(first, part))
                if rng.random() < 0.3:
                    pings.append(b"between %d" % len(pings))
                    frames.append(ping(pings[-1]))
            messages.append(b"".join(parts))
        elif kind == 3:
            pings.append(b"ping %d" % len(pings))
            frames.append(ping(pings[-1]))
        else:
            frames.append(frame(0x8A, b"unsolicited"))
    return frames, messages, pings


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seed", range(30))
def test_a_random_conversation(seed: int, tls: bool) -> None:
    rng = random.Random(seed)
    frames, messages, pings = script(rng)
    received: list[Any] = []
    sent: list[bytes] = []
    outcome: list[Any] = []

    def handler(ws: WebSocket) -> None:
        try:
            while True:
                action = rng.randrange(6)
                if action <= 2:
                    try:
                        received.append(ws.receive(rng.choice((None, None, 0, 0.001))))
                    except TimeoutError:
                        continue
                elif action == 3 and len(sent) < 30:
                    data = b"%d " % len(sent) + bytes(rng.choice((0, 10, 5000)))
                    ws.send(data)
                    sent.append(data)
                elif action == 4:
                    gevent.sleep(rng.choice((0, 0, 0.001)))
                elif rng.random() < 0.1:
                    ws.ping(b"ours")
        except ConnectionClosedOK as error:
            outcome.append(error)
            # It may have been a `send` that found out: what came before the Close is there still.
            received.extend(ws)

    def send(peer: Any) -> None:
        data = b"".join(frames) + close(1000)
        position = 0
        while position < len(data):
            size = rng.choice((1, 2, 3, 7, 100, 1400, 30_000))
            peer.send(data[position : position + size])
            position += size
            if rng.random() < 0.5:
                gevent.sleep(rng.choice((0, 0, 0.001)))

    options = {"max_queue": rng.choice((1, 2, 16, None)), "small": rng.random() < 0.5, "tls": tls}
    with opened(handler, **options) as session:
        sending = gevent.spawn(send, session.peer)
        answers = session.peer.read_frames()
        sending.get(timeout=PATIENCE)
        session.peer.close()
        session.ended()
    assert received == messages
    assert len(outcome) == 1
    assert answers[-1] == (0x88, b"\x03\xe8")
    assert [payload for first, payload in answers if first == 0x82] == sent
    # Each Ping is answered in its order; where the peer's buffers were full meanwhile, the latest of some.
    pongs = [payload for first, payload in answers if first == 0x8A]
    positions = [pings.index(payload) for payload in pongs]
    assert positions == sorted(set(positions))
    if not options["small"]:
        assert pongs == pings
