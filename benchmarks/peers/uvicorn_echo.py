"""uvicorn on uvloop and httptools, running the ASGI application."""

from __future__ import annotations

import arguments
import uvicorn
from asgi_app import app

options = arguments.read(__doc__, wsproto="use wsproto instead of websockets")
uvicorn.run(
    app,
    host="127.0.0.1",
    port=options.port,
    ws="wsproto" if options.wsproto else "websockets-sansio",
    ws_max_size=1 << 30,
    ws_per_message_deflate=options.compress,
    loop="uvloop",
    http="httptools",
    log_level="error",
    access_log=False,
    backlog=4096,
)
