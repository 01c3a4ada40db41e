"""`import geventwebsocket`: where it comes from, when it can, and what does so in gunicorn."""

from __future__ import annotations

import importlib
import io
import logging
import pickle
import re
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, request
from hosting import ask, host, host_threaded, plain
from processes import DEADLINE, Process, open_client
from support import RawClient, close, text
from websockets.exceptions import ConnectionClosed
from werkzeug.middleware.proxy_fix import ProxyFix

import geventws
from geventws.compat import VERSION, get_version
from geventws.compat.exceptions import FrameTooLargeException, ProtocolError, WebSocketError
from geventws.compat.flask import Sockets
from geventws.compat.frames import Header
from geventws.compat.handler import Client
from geventws.compat.logging import create_logger
from geventws.flask import Sock

pytestmark = pytest.mark.usefixtures("no_leaks")


def run(program: str, path: Path | None = None) -> str:
    """Run a program to its end, perhaps with modules in a folder, and return what it prints."""
    source = textwrap.dedent(program)
    if path is not None:
        source = f"import sys; sys.path.insert(0, {str(path)!r})\n{source}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.rstrip("\n")


class TestInstall:
    def test_all_names(self) -> None:
        """As programs import them."""
        assert (
            run("""
            import geventws.compat
            geventws.compat.install()
            geventws.compat.install()
            import sys
            assert "gunicorn" not in sys.modules

            import geventwebsocket
            import geventwebsocket.handler
            from geventwebsocket import (
                Resource, VERSION, WebSocketApplication, WebSocketError, WebSocketServer, get_version,
            )
            from geventwebsocket.exceptions import FrameTooLargeException, ProtocolError
            from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
            from geventwebsocket.handler import Client, WebSocketHandler
            from geventwebsocket.logging import create_logger
            from geventwebsocket.protocols.base import BaseProtocol
            from geventwebsocket.resource import Resource as SameResource
            from geventwebsocket.server import WebSocketServer as SameServer
            from geventwebsocket.utils import get_version as same_version
            from geventwebsocket.websocket import (
                MSG_ALREADY_CLOSED, MSG_CLOSED, MSG_SOCKET_DEAD, Header, Stream, WebSocket,
            )
            import gevent.pywsgi
            from importlib.util import find_spec

            assert Resource is SameResource and WebSocketServer is SameServer
            assert geventwebsocket.handler.WebSocketHandler is WebSocketHandler
            assert WebSocketServer.handler_class is WebSocketHandler
            assert issubclass(WebSocketHandler, gevent.pywsgi.WSGIHandler)
            assert issubclass(GeventWebSocketWorker.wsgi_handler, WebSocketHandler)
            assert sys.modules["geventwebsocket.gunicorn.workers"] is geventwebsocket.gunicorn.workers
            assert sys.modules["geventwebsocket"] is geventws.compat
            assert find_spec("geventwebsocket") and find_spec("geventwebsocket.gunicorn.workers")
            assert len([f for f in sys.meta_path if type(f).__module__ == "geventws.compat.installing"]) == 1
            print(get_version(), MSG_SOCKET_DEAD, MSG_ALREADY_CLOSED, MSG_CLOSED, sep="; ")
            """)
            == "0.10.1; Socket is dead; Connection is already closed; Connection closed"
        )

    @pytest.mark.parametrize("name", ["protocols.wamp", "flask", "installing", "nothing"])
    def test_what_is_not_there(self, name: str) -> None:
        output = run(f"""
            import geventws.compat
            geventws.compat.install()
            try:
                import geventwebsocket.{name}
            except ModuleNotFoundError as error:
                print(error.name, error)
            """)
        assert output.startswith(f"geventwebsocket.{name} no module named 'geventwebsocket.{name}'")

    def test_it_wins_over_one_that_is_installed(self, tmp_path: Path) -> None:
        (tmp_path / "geventwebsocket").mkdir()
        (tmp_path / "geventwebsocket/__init__.py").write_text("print('the other')")
        (tmp_path / "geventwebsocket/handler.py").write_text("print('the other')")
        program = """
            import geventws.compat
            geventws.compat.install()
            import geventwebsocket.handler
            print(geventwebsocket.handler.__name__)
            """
        assert run(program, tmp_path) == "geventws.compat.handler"

    def test_one_that_was_imported_already(self, tmp_path: Path) -> None:
        (tmp_path / "geventwebsocket").mkdir()
        (tmp_path / "geventwebsocket/__init__.py").write_text("")
        output = run(
            """
            import geventwebsocket, geventws.compat
            for _ in range(2):
                try:
                    geventws.compat.install()
                except RuntimeError as error:
                    print(error)
            assert sys.modules["geventwebsocket"] is geventwebsocket
            """,
            tmp_path,
        )
        assert len(set(output.splitlines())) == 1
        assert f"imported already (geventwebsocket, from {tmp_path}/geventwebsocket/__init__.py)" in output
        assert "call geventws.compat.install() before the first import" in output

    def test_engineio_that_has_looked_already(self, tmp_path: Path) -> None:
        (tmp_path / "engineio/async_drivers").mkdir(parents=True)
        for name in ("engineio/__init__.py", "engineio/async_drivers/__init__.py"):
            (tmp_path / name).write_text("")
        (tmp_path / "engineio/async_drivers/gevent.py").write_text("")
        output = run(
            """
            import engineio.async_drivers.gevent, geventws.compat
            try:
                geventws.compat.install()
            except RuntimeError as error:
                print(error)
            assert "geventwebsocket" not in sys.modules
            """,
            tmp_path,
        )
        assert "before engineio, socketio or flask_socketio are imported" in output

    def test_options_are_those_of_all_that_say_nothing_else(self) -> None:
        assert run("""
            import geventws.compat
            geventws.compat.install(origins=None, max_message_size=5)
            geventws.compat.install()
            for wrong in ({"origin": None}, {"max_queue": 0}):
                try:
                    geventws.compat.install(**wrong)
                except (TypeError, ValueError) as error:
                    print(error)
            app = geventws.compat.CompatMiddleware(print, max_message_size=6)
            print(app.options.origins, app.options.max_message_size, app.options.max_queue)
            geventws.compat.install(max_queue=3)
            print(geventws.compat.CompatMiddleware(print).options.max_queue)
            """).splitlines()[1:] == [
            "max_queue takes a positive number of messages or None (unlimited), not 0",
            "None 6 16",
            "3",
        ]

    def test_monkey_patching_behind_it(self) -> None:
        """gunicorn's worker does so: its configuration file comes first."""
        run("""
            import geventws.compat
            geventws.compat.install()
            from gevent import monkey
            monkey.patch_all()
            """)


CONFIG = """
import geventws.compat
geventws.compat.install()
"""

SITE = """
def app(environ, start_response):
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("200 OK", [("Content-Length", "4")])
        return [b"page"]
    ws.send(type(ws.handler).__module__)
    while True:
        message = ws.receive()
        if message is None:
            return []
        for client in ws.handler.server.clients.values():
            client.ws.send(message)
"""


class TestGunicorn:
    """`-k geventwebsocket.gunicorn.workers.GeventWebSocketWorker`, as it stands in many a Procfile."""

    @pytest.mark.deadline(60)
    def test_worker(self, tmp_path: Path) -> None:
        (tmp_path / "gunicorn.conf.py").write_text(CONFIG)
        (tmp_path / "site_.py").write_text(SITE)
        command = (
            "-W", "default", "-m", "gunicorn", "-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
            "-c", tmp_path / "gunicorn.conf.py", "-b", "127.0.0.1:0", "--no-control-socket",
            "--access-logfile", tmp_path / "access", "--graceful-timeout", "20",
            "--chdir", tmp_path, "site_:app",
        )  # fmt: skip
        with Process(*command) as process:
            address = process.wait_for_error(r"Listening at: http://(127\.0\.0\.1:\d+)")[1]
            with urllib.request.urlopen(f"http://{address}/page", timeout=DEADLINE) as page:
                assert page.read() == b"page"
            with open_client(f"ws://{address}", "/one") as one, open_client(f"ws://{address}", "/two") as two:
                for client in (one, two):
                    assert client.recv(timeout=DEADLINE) == "geventws.compat.gunicorn.workers"
                one.send("x" * 100_000)
                for client in (one, two):
                    assert client.recv(timeout=DEADLINE) == "x" * 100_000
                one.close()
                process.signal(15)
                with pytest.raises(ConnectionClosed) as caught:
                    two.recv(timeout=DEADLINE)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1001
            assert process.wait() == 0
            assert not re.search("Traceback|Warning", process.errors())
        lines = (tmp_path / "access").read_text().splitlines()
        assert [re.search(r'"GET (\S+) HTTP/1.1" (\d+)', line).groups() for line in lines] == [  # type: ignore[union-attr]
            ("/page", "200"),
            ("/one", "101"),
            ("/two", "101"),
        ]


def finish(client: RawClient) -> None:
    client.send(close(1000))
    client.expect_close(1000)
    client.expect_end()


class TestSockets:
    """The interface of flask-sockets."""

    @pytest.fixture(params=["pywsgi", "werkzeug"])
    def hosted(self, request: Any) -> Any:
        return {"pywsgi": host, "werkzeug": host_threaded}[request.param]

    @pytest.fixture
    def app(self) -> Flask:
        app = Flask("app_under_test")
        app.get("/")(lambda: "page")
        return app

    def test_routes_variables_and_contexts(self, app: Flask, hosted: Any) -> None:
        sockets = Sockets(app)

        @sockets.route("/echo")
        def echo(ws: Any) -> None:
            while not ws.closed:
                ws.send(ws.receive())

        @sockets.route("/room/<name>/<int:number>")
        def room(ws: Any, name: str, number: int) -> None:
            ws.send(f"{name} {number} {request.args['q']} {app.name} {ws.path}")

        assert callable(echo)
        with hosted(app) as server:
            with RawClient.connect(server.address, b"/echo") as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                finish(client)
            with RawClient.connect(server.address, b"/room/tea/7?q=query") as client:
                client.expect(0x81, b"tea 7 query app_under_test /room/tea/7")
                client.expect_close(1000)
            assert plain(server).endswith(b"page")
            # Before the upgrade, which flask-sockets cannot.
            assert ask(server, b"/nobody").startswith(b"HTTP/1.1 404 ")

    def test_blueprints(self, app: Flask) -> None:
        sockets = Sockets()
        sockets.init_app(app)
        blueprint = Blueprint("deep", __name__)
        blueprint.route("/ws")(lambda ws: ws.send("in it"))
        sockets.register_blueprint(blueprint, url_prefix="/prefix")
        sockets.register_blueprint(blueprint, url_prefix="/again")
        with pytest.raises(ValueError, match="another blueprint is registered as 'deep' already"):
            sockets.register_blueprint(Blueprint("deep", __name__))
        assert sockets.blueprints == {"deep": blueprint}
        with host(app) as server:
            for path in (b"/prefix/ws", b"/again/ws"):
                with RawClient.connect(server.address, path) as client:
                    client.expect(0x81, b"in it")

    def test_view_that_raises(self, app: Flask, caplog: Any) -> None:
        Sockets(app).route("/")(lambda ws: 1 / 0)
        with host(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1

    def test_beside_a_sock(self, app: Flask) -> None:
        for first in (0, 1):
            app = Flask("app_under_test")
            adders: list[Any] = [
                lambda app: Sockets(app).route("/old")(lambda ws: ws.send("old")),
                lambda app: Sock(app).route("/new")(lambda ws: ws.send("new")),
            ]
            for add in (adders[first], adders[1 - first]):
                add(app)
            with host(app) as server:
                for path, said in ((b"/old", b"old"), (b"/new", b"new")):
                    with RawClient.connect(server.address, path) as client:
                        client.expect(0x81, said)

    def test_sock_that_another_middleware_hides_from_the_handler(self) -> None:
        """As Flask-SocketIO and ProxyFix do: the handler accepts what the `Sock` would have accepted late."""
        from geventws.compat.handler import WebSocketHandler

        app = Flask("app_under_test")
        sock, sockets = Sock(app), Sockets(app)

        @sockets.route("/old/<name>")
        def old(ws: Any, name: str) -> None:
            ws.send(f"old {name}: {ws.receive()}")

        @sock.route("/echo/<name>")
        def echo(ws: Any, name: str) -> None:
            for message in ws:
                ws.send(f"{name}: {message}")
                sock.broadcast("to all")

        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
        with host(app, handler_class=WebSocketHandler) as server:
            with RawClient.connect(server.address, b"/echo/you") as client:
                client.send(text("x"))
                client.expect(0x81, b"you: x")
                client.expect(0x81, b"to all")
                client.send(close(1000))
                client.expect_close(1000)
                client.expect_end()
            with RawClient.connect(server.address, b"/old/you") as client:
                client.send(text("x"))
                client.expect(0x81, b"old you: x")
                client.expect_close(1000)


class TestPieces:
    @pytest.mark.parametrize(
        ("version", "string"),
        [
            (VERSION, "0.10.1"),
            ((1, 0, 0, "final", 0), "1.0"),
            ((1, 2, 3, "rc", 4), "1.2.3rc4"),
            ((1, 2, 0, "alpha", 1), "1.2a1"),
        ],
    )
    def test_version(self, version: Any, string: str) -> None:
        assert get_version(version) == string
        assert get_version() == "0.10.1"

    @pytest.mark.parametrize("kind", [WebSocketError, ProtocolError, FrameTooLargeException])
    def test_exceptions(self, kind: Any) -> None:
        error = kind("Socket is dead")
        assert (str(error), error.args) == ("Socket is dead", ("Socket is dead",))
        assert isinstance(error, (OSError, geventws.WebSocketError))
        assert isinstance(error, WebSocketError)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.args) == (kind, error.args)

    def test_client_takes_attributes(self) -> None:
        client = Client(("127.0.0.1", 1), None)  # type: ignore[arg-type]
        client.nickname = "x"  # type: ignore[attr-defined]
        assert (client.address, client.ws, client.nickname) == (("127.0.0.1", 1), None, "x")  # type: ignore[attr-defined]

    @pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 2**40])
    @pytest.mark.parametrize("mask", [b"", b"abcd"])
    def test_header_there_and_back(self, length: int, mask: bytes) -> None:
        data = Header.encode_header(True, 2, mask, length, Header.RSV0_MASK)
        header = Header.decode_header(io.BytesIO(bytes(data)))
        assert (header.fin, header.opcode, header.flags) == (True, 2, 0x40)
        assert (header.length, header.mask) == (length, mask)
        assert header.unmask_payload(header.mask_payload(b"payload")) == b"payload"
        assert (header.mask_payload(b"payload") == b"payload") == (not mask)
        assert "length=" in repr(header)
        for end in range(len(data)):
            with pytest.raises(WebSocketError, match="Unexpected EOF"):
                Header.decode_header(io.BytesIO(bytes(data[:end])))

    def test_header_that_is_wrong(self) -> None:
        with pytest.raises(ProtocolError, match="fragmented"):
            Header.decode_header(io.BytesIO(b"\x09\x00"))
        with pytest.raises(FrameTooLargeException, match="above 125 bytes"):
            Header.decode_header(io.BytesIO(b"\x89\x7e"))
        with pytest.raises(FrameTooLargeException, match="has no header"):
            Header.encode_header(True, 2, b"", 2**64, 0)

    def test_logger(self, capsys: Any) -> None:
        name = "geventwebsocket.logging"
        assert create_logger(name) is logging.getLogger(name)
        assert not create_logger(name).handlers
        for _ in range(2):
            logger = create_logger(name, True, "-- %(message)s")
        assert len(logger.handlers) == 1
        logger.handlers[0].setStream(io.StringIO())  # type: ignore[attr-defined]
        logger.debug("x")
        assert logger.handlers[0].stream.getvalue() == "-- x\n"  # type: ignore[attr-defined]
        assert not create_logger(name).handlers
        logger.setLevel(logging.NOTSET)

    def test_modules_are_ours(self) -> None:
        for name in ("handler", "websocket", "resource", "server", "exceptions", "logging", "protocols.base"):
            module = importlib.import_module(f"geventws.compat.{name}")
            assert all(hasattr(module, public) for public in module.__all__)
