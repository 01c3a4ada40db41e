"""What a flood on one connection makes the server start: nothing."""

from __future__ import annotations

import gc
from typing import Any

import gevent
import greenlet
import pytest
from support import RawClient, frame, serve, text, wait_until

from geventws import RateLimit

pytestmark = pytest.mark.usefixtures("no_leaks")


def running() -> int:
    """How many greenlets there are."""
    return sum(
        1
        for thing in gc.get_objects()
        if isinstance(thing, greenlet.greenlet) and not thing.dead and thing.parent is not None
    )


@pytest.mark.parametrize(
    "flood", [text("x"), frame(0x89, b"x"), frame(0x8A, b"x"), frame(0x01) + frame(0x80)],
    ids=["messages", "pings", "pongs", "fragments"],
)  # fmt: skip
def test_p0_17_one_greenlet_whatever_is_sent(flood: bytes) -> None:
    counts: set[int] = set()
    received = 0

    def handler(ws: Any) -> None:
        nonlocal received
        for message in ws:
            if message == "end":
                ws.send("end")
            received += 1

    with (
        serve(handler, rate_limit=RateLimit(controls=None)) as server,
        RawClient.connect(server.address) as client,
    ):
        wait_until(lambda: server.connections)
        before = running()
        for _ in range(20):
            client.send(flood * 500)
            gevent.sleep(0)
            counts.add(running())
        client.send(text("end"))
        while client.read_frame() != (0x81, b"end"):
            pass
        counts.add(running())
        assert counts == {before}
        assert len(server.pool.greenlets) == 1
