"""websockets.sync, monkey-patched for gevent."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import driver  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

meter = driver.Meter()


class Client:
    def __init__(self):
        self._ws = connect(meter.uri, compression=None, max_size=None)
        self.send = self._ws.send
        self.receive = self._ws.recv
        self.close = self._ws.close


driver.run_greenlets(meter, Client)
