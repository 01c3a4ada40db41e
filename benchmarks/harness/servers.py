"""The servers that are measured: the name of each, and how it is started."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

__all__ = ["SERVERS", "Server", "check_names"]

BENCHMARKS = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
        name: as the tables and the command line call it.
        script: below benchmarks/.
        switches: its arguments, besides --port and --compress.
        runs_on: the interpreter: the one with geventws, the peers', or Node.
        packages: distributions whose versions are worth telling.
        compresses: it can do permessage-deflate.
        environment: variables for it.
    """

    name: str
    script: str
    switches: tuple[str, ...] = ()
    runs_on: Literal["ours", "peers", "node"] = "peers"
    packages: tuple[str, ...] = ()
    compresses: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, interpreter: str, port: int, *, compress: bool) -> list[str]:
        """The command line that starts it."""
        line = [interpreter, str(BENCHMARKS / self.script), "--port", str(port), *self.switches]
        return [*line, "--compress"] if compress else line


_OURS = ("geventws", "gevent", "greenlet", "httptools")

_ALL = (
    Server(
        "geventws",
        "servers/geventws_echo.py",
        ("--build", "compiled"),
        "ours",
        _OURS,
        compresses=True,
        environment=(("GEVENTWS_PURE_PYTHON", ""),),
    ),
    Server(
        "geventws-pure",
        "servers/geventws_echo.py",
        ("--build", "pure"),
        "ours",
        _OURS,
        compresses=True,
        environment=(("GEVENTWS_PURE_PYTHON", "1"),),
    ),
    Server("picows", "peers/picows_echo.py", packages=("picows", "uvloop")),
    Server(
        "picows.websockets",
        "peers/websockets_asyncio.py",
        ("--picows", "--uvloop"),
        packages=("picows", "uvloop"),
        compresses=True,
    ),
    Server("socketify", "peers/socketify_echo.py", packages=("socketify",), compresses=True),
    Server(
        "aiohttp", "peers/aiohttp_echo.py", ("--uvloop",), packages=("aiohttp", "uvloop"), compresses=True
    ),
    Server("granian", "peers/granian_echo.py", ("--rsgi",), packages=("granian", "uvloop")),
    Server(
        "websockets",
        "peers/websockets_asyncio.py",
        ("--uvloop",),
        packages=("websockets", "uvloop"),
        compresses=True,
    ),
    Server(
        "uvicorn",
        "peers/uvicorn_echo.py",
        packages=("uvicorn", "websockets", "httptools", "uvloop"),
        compresses=True,
    ),
    Server(
        "gevent-websocket",
        "peers/gevent_websocket_echo.py",
        packages=("gevent-websocket", "wsaccel", "gevent"),
    ),
    # Not in the table by default; `--servers` takes them.
    Server(
        "gevent-websocket-plain",
        "peers/gevent_websocket_echo.py",
        ("--no-wsaccel",),
        packages=("gevent-websocket", "gevent"),
    ),
    Server("picows-asyncio", "peers/picows_echo.py", ("--asyncio",), packages=("picows",)),
    Server(
        "simple-websocket",
        "peers/flask_sock_gevent.py",
        packages=("simple-websocket", "gevent"),
        compresses=True,
    ),
    Server(
        "flask-sock",
        "peers/flask_sock_gevent.py",
        ("--flask",),
        packages=("flask-sock", "simple-websocket", "Flask", "gevent"),
        compresses=True,
    ),
    Server("tornado", "peers/tornado_echo.py", packages=("tornado",), compresses=True),
    Server("autobahn", "peers/autobahn_echo.py", packages=("autobahn", "Twisted"), compresses=True),
    Server("websockets-threads", "peers/websockets_sync.py", packages=("websockets",), compresses=True),
    Server(
        "websockets-gevent",
        "peers/websockets_sync.py",
        ("--gevent",),
        packages=("websockets", "gevent"),
        compresses=True,
    ),
    Server("granian-asgi", "peers/granian_echo.py", packages=("granian", "uvloop")),
    Server("gevent-floor", "peers/gevent_floor.py", packages=("gevent",)),
    Server("gevent-floor-callback", "peers/gevent_floor.py", ("--callback",), packages=("gevent",)),
    Server("ws", "peers/ws_echo.js", runs_on="node", compresses=True),
)

#: By name, in the order of the tables.
SERVERS = {server.name: server for server in _ALL}


def check_names(names: list[str]) -> list[str]:
    """Return the names if there is a server for each.

    Raises:
        ValueError: if there is not.
    """
    unknown = [name for name in names if name not in SERVERS]
    if unknown:
        raise ValueError(f"no server is named {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    return names
