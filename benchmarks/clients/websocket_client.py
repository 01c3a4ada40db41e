"""websocket-client, monkey-patched for gevent; wsaccel, which it uses where it is, masks for it."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import driver  # noqa: E402
import websocket  # noqa: E402

meter = driver.Meter()


class Client:
    def __init__(self):
        self._ws = websocket.create_connection(meter.uri)
        self.receive = self._ws.recv
        self.close = self._ws.close
        self.send = self._ws.send_binary if meter.options.binary else self._ws.send


driver.run_greenlets(meter, Client)
