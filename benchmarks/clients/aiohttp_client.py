"""aiohttp on uvloop."""

from __future__ import annotations

import aiohttp
import driver
import uvloop

meter = driver.Meter()


class Client:
    def __init__(self, ws):
        self._ws = ws
        self.send = ws.send_bytes if meter.options.binary else ws.send_str
        self.close = ws.close

    async def receive(self):
        return (await self._ws.receive()).data


async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def connect():
            return Client(await session.ws_connect(meter.uri, max_msg_size=0))

        await driver.run_tasks(meter, connect)


uvloop.run(main())
