"""What an ordinary request costs more with WebSockets around it: the middleware, `Sock`, our pywsgi handler.

    python benchmarks/plain_http.py
    chrt -f 50 taskset -c 0 python benchmarks/plain_http.py     # as root, on a machine that others use

Each application is called (or each request handled, for the handler) with what is measured and without it, by
turns. CPU time in microseconds, the least of all rounds: what disturbs only ever adds. The goal is at
most 2 more; the status is 1 where one misses it.
"""

from __future__ import annotations

import argparse
import gc
import io
import sys
import time
from collections.abc import Callable
from typing import Any

from gevent.pywsgi import WSGIHandler, WSGIServer

from geventws import Router, WebSocketMiddleware
from geventws.pywsgi import WebSocketHandler

GOAL = 2.0

_REQUEST = b"GET /plain HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"


def _environ() -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/plain", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost", "HTTP_USER_AGENT": "benchmark", "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr, "wsgi.multithread": False, "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }  # fmt: skip


def _app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"plain"]


def _calls(app: Any) -> Callable[[int], None]:
    """Return what calls an application a number of times."""
    environ = _environ()

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return None

    def run(count: int) -> None:
        for _ in range(count):
            for _ in app(environ.copy(), start_response):
                pass

    return run


def _flask(with_sock: bool) -> Any:
    from flask import Flask

    app = Flask("benchmark")

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    if with_sock:
        from geventws.flask import Sock

        Sock(app)
    return app.wsgi_app


class _Socket:
    """Stands in for a connection, of which the kernel's part is not measured."""

    def makefile(self, *_: Any) -> None:
        return None

    def sendall(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def _requests(handler_class: type) -> Callable[[int], None]:
    """Return what has a handler of gevent.pywsgi handle a number of requests on one connection."""
    server = WSGIServer(("127.0.0.1", 0), _app, log=None, handler_class=handler_class)
    server.set_environ({"SERVER_NAME": "localhost"})
    server.update_environ()

    def run(count: int) -> None:
        handler = handler_class(_Socket(), ("127.0.0.1", 1), server)
        handler.rfile = io.BytesIO(_REQUEST * count)
        handler.handle()

    return run


def _subjects() -> dict[str, tuple[Callable[[int], None], Callable[[int], None]]]:
    """Return pairs: without, and with."""
    router = Router({"/echo": lambda ws: None})
    found = {
        "WebSocketMiddleware(app)": (_calls(_app), _calls(WebSocketMiddleware(_app))),
        "WebSocketMiddleware(app, router)": (_calls(_app), _calls(WebSocketMiddleware(_app, router))),
        "handler_class=WebSocketHandler": (_requests(WSGIHandler), _requests(WebSocketHandler)),
    }
    try:
        found["Flask with Sock"] = (_calls(_flask(False)), _calls(_flask(True)))
    except ImportError:
        print("Flask is not installed: its row is missing")
    return found


def measure(
    without: Callable[[int], None], within: Callable[[int], None], rounds: int, count: int
) -> list[float]:
    """Return the least CPU time of a call without and with it, in microseconds."""
    least = [float("inf"), float("inf")]
    gc.collect()
    gc.disable()
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            run = (without, within)[which]
            started = time.process_time_ns()
            run(count)
            least[which] = min(least[which], (time.process_time_ns() - started) / count / 1000)
    gc.enable()
    return least


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=1000, help="calls in a round (default: %(default)s)")
    arguments = parser.parse_args(argv)
    missed = 0
    print("| | without, µs | with, µs | more, µs |")
    print("|---|---:|---:|---:|")
    for name, (without, within) in _subjects().items():
        least = measure(without, within, arguments.rounds, arguments.count)
        more = least[1] - least[0]
        missed += more > GOAL
        print(f"| {name} | {least[0]:.2f} | {least[1]:.2f} | {more:.2f} |", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
