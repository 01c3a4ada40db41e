"""socketify: uWebSockets behind cffi."""

from __future__ import annotations

import arguments
from socketify import App, AppListenOptions, CompressOptions

options = arguments.read(__doc__)
app = App()
compression = CompressOptions.DISABLED
if options.compress:
    compression = CompressOptions.DEDICATED_COMPRESSOR | CompressOptions.DEDICATED_DECOMPRESSOR


def upgrade(response, request, context):
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        request.get_url(),
    )


def opened(ws):
    if ws.get_user_data() == "/broadcast":
        ws.subscribe("room")


def message(ws, data, opcode):
    if ws.get_user_data() == "/broadcast":
        app.publish("room", data, opcode)
    else:
        ws.send(data, opcode, options.compress)


behaviour = {
    "compression": compression,
    "max_payload_length": 64 << 20,
    "max_backpressure": 64 << 20,
    "idle_timeout": 120,
    "upgrade": upgrade,
    "open": opened,
    "message": message,
}
app.ws("/*", behaviour)
app.listen(AppListenOptions(port=options.port, host="127.0.0.1"), lambda config: None)
app.run()
