"""Start a program of this folder, as it stands or with the one line or import that makes it ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from processes import Process

__all__ = ["ANNOUNCE", "HERE", "serve"]

HERE = Path(__file__).parent

#: The one line.
INSTALL = "import geventws.compat; geventws.compat.install()\n"

#: Or the import that is changed.
IMPORTS = {
    "from flask_sockets import Sockets": "from geventws.compat.flask import Sockets",
    "from flask_sock import Sock": "from geventws.flask import Sock",
}

#: What stands for the handler class on a server that has none.
WRAP = {
    "handler_echo": "app = geventws.compat.CompatMiddleware(app)\n",
    "socketio_app": "app.wsgi_app = geventws.compat.CompatMiddleware(app.wsgi_app)\n",
}

#: Makes servers take any port and say which one.
ANNOUNCE = """
import gevent.pywsgi

def announce(self, *arguments, serve_forever=gevent.pywsgi.WSGIServer.serve_forever):
    self.start()
    print(f"listening on http://127.0.0.1:{self.server_port}", flush=True)
    serve_forever(self, *arguments)

gevent.pywsgi.WSGIServer.serve_forever = announce
"""


def change(name: str) -> str:
    """Return a program's text with its one change."""
    source = (HERE / f"{name}.py").read_text(encoding="utf-8")
    for before, after in IMPORTS.items():
        if before in source:
            return (INSTALL if "geventwebsocket" in source else "") + source.replace(before, after)
    return INSTALL + source


@contextlib.contextmanager
def serve(name: str, how: str, folder: Path) -> Iterator[tuple[Process, str]]:
    """Run a program; gives its process, and host and port.

    Args:
        name: the program.
        how: "original" runs it on what it was written for; "changed" by itself, with its one change; "flask
            run", "gunicorn gevent" and "gunicorn worker" on those, the last with that of gevent-websocket.
        folder: where its text is put.
    """
    source = (HERE / f"{name}.py").read_text(encoding="utf-8") if how == "original" else change(name)
    path = folder / f"{name}.py"
    # Others' warnings are not ours.
    if how in ("original", "changed"):
        path.write_text(ANNOUNCE + source, encoding="utf-8")
        command: tuple[str | Path, ...] = ("-W", "default", path, "0")
    elif how == "flask run":
        path.write_text(source, encoding="utf-8")
        command = ("-W", "default", "-m", "flask", "--app", path, "run", "--port", "0", "--no-reload")
    else:
        # In the worker's case nothing of it is changed: the line is in the configuration.
        worker = how == "gunicorn worker"
        text = (HERE / f"{name}.py").read_text(encoding="utf-8") if worker else source + WRAP.get(name, "")
        path.write_text(text, encoding="utf-8")
        (folder / "gunicorn.conf.py").write_text(INSTALL if worker else "", encoding="utf-8")
        command = (
            "-W", "default", "-m", "gunicorn", "--no-control-socket", "-b", "127.0.0.1:0",
            "-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker" if worker else "gevent",
            "-c", folder / "gunicorn.conf.py", "--chdir", folder, f"{name}:app",
        )  # fmt: skip
    with Process(*command) as process:
        if how in ("original", "changed"):
            address = process.url().removeprefix("http://")
        else:
            address = process.wait_for_error(r"(?:Listening at:|Running on) http://(127\.0\.0\.1:\d+)")[1]
        yield process, address
        if how != "original":
            assert "Traceback" not in process.errors(), process.errors()
