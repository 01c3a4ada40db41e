"""picows on uvloop, as its documentation shows it: callbacks, no task for each connection.

Text is handed to the application as a str, as by the others; binary is looked at where it stands.
"""

from __future__ import annotations

import asyncio

import driver
import uvloop
from picows import WSListener, WSMsgType, ws_connect

meter = driver.Meter()
options, counts, size = meter.options, meter.counts, meter.options.size
KIND = WSMsgType.BINARY if options.binary else WSMsgType.TEXT
MESSAGE = meter.message if options.binary else meter.message.encode()


class Echo(WSListener):
    def __init__(self):
        self.number = -1
        self.first = True

    def on_ws_frame(self, transport, frame):
        if frame.msg_type != KIND:
            meter.fail(driver.Failure(f"a frame of another kind: {frame.msg_type}"))
        message = frame.get_payload_as_memoryview() if options.binary else frame.get_payload_as_utf8_text()
        if self.first:
            self.first = False
            meter.check(bytes(message) if options.binary else message)
        elif len(message) != size:
            meter.fail(driver.Failure("a message of another length"))
        else:
            counts[self.number] += 1
        transport.send(KIND, MESSAGE)


class Silent(WSListener):
    pass


class Client:
    """For connections that come and go, and for those that wait."""

    def __init__(self, transport):
        self._transport = transport

    async def close(self):
        self._transport.send_close()
        await self._transport.wait_disconnected()

    async def receive(self):
        # A listener needs no task that waits; the driver wants to know which are open.
        await self._transport.wait_disconnected()


async def open_one():
    transport, _ = await ws_connect(Silent, meter.uri, max_frame_size=1 << 30)
    return Client(transport)


async def echo():
    opened = []
    for number in range(options.connections):
        transport, listener = await ws_connect(Echo, meter.uri, max_frame_size=1 << 30)
        listener.number = number
        opened.append(transport)
    for transport in opened:
        transport.send(KIND, MESSAGE)
    await asyncio.sleep(options.warmup)
    meter.begin()
    await asyncio.sleep(options.seconds)
    meter.end()


uvloop.run(echo() if options.mode == "echo" else driver.run_tasks(meter, open_one))
