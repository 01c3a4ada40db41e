"""tornado on its asyncio loop."""

from __future__ import annotations

import asyncio
import logging

import arguments
import tornado.web
import tornado.websocket

options = arguments.read(__doc__)
logging.getLogger("tornado.access").disabled = True
room = set()


class Echo(tornado.websocket.WebSocketHandler):
    def open(self):
        self.broadcasting = self.request.path == "/broadcast"
        if self.broadcasting:
            room.add(self)

    def on_close(self):
        room.discard(self)

    def on_message(self, message):
        for receiver in list(room) if self.broadcasting else (self,):
            receiver.write_message(message, isinstance(message, bytes))

    def check_origin(self, origin):
        return True

    def get_compression_options(self):
        return {} if options.compress else None


async def main():
    app = tornado.web.Application([(r"/.*", Echo)], websocket_max_message_size=1 << 30)
    app.listen(options.port, "127.0.0.1", backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
