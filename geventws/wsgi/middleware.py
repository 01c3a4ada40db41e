"""The WSGI middleware: WebSockets in the application that people have, beside its ordinary requests.

A request that asks for no WebSocket goes through untouched. One that does is checked, and then either
served by a handler, or given to the application together with a WebSocket that is not accepted yet (late.py).
How the connection is had from the server is in takeover.py.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import gevent
from gevent._hub_local import get_hub_if_exists

from ..endings import STOPPING, close_cause, count_end, log_end
from ..exceptions import ConnectionClosed, InvalidHandshake
from ..keepalive import Keepalive
from ..options import check_timeout, make_options
from ..protocol.handshake import error_response
from ..protocol.http import Response
from ..routing import check_handler
from ..serving import REFUSAL_LINES, Lines, Throttle, agree, run_handler, shorten
from ..stats import Stats
from .late import LateWebSocket, Phase, Terms, Upgrade
from .requests import asks_for_websocket, has_body, make_request
from .response import HeldResponse, LastResponse
from .takeover import CannotTakeOver, find
from .threads import ThreadedWebSocket, hub_of_this_thread

if TYPE_CHECKING:
    from ..protocol.http import Request
    from ..routing import Router
    from ..websocket import WebSocket
    from .takeover import StartResponse, Takeover

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger("geventws")

#: Seconds between two log lines about the same thing.
_LOG_INTERVAL = 10.0

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class WebSocketMiddleware:
    """Adds WebSockets to a WSGI application, on the server that it runs on.

    ::

        app = WebSocketMiddleware(app, Router({"/echo": echo}))

    or, without a handler, for an application that takes the WebSocket itself::

        def app(environ, start_response):
            ws = environ.get("wsgi.websocket")  # None on ordinary requests
            if ws is not None:
                for message in ws:
                    ws.send(message)
                return []
            ...

    The first use of that WebSocket accepts it. An application that returns an ordinary response
    instead - 401, 404, a redirect - rejects the upgrade with it; using the WebSocket after that raises
    `InvalidState`. After it was accepted, the application's status and body are dropped, and it is closed:
    with 1011 for a status from 500 on or an exception, otherwise with 1000.

    Attributes:
        connections: the WebSockets that are open, a set.
        stats: counts, see `Stats`; those of accepting and of reading requests are the server's business here.
        options: the options in force, an `Options`.
    """

    def __init__(
        self, app: Application, handler: Callable[..., Any] | Router | None = None, **options: Any
    ) -> None:
        """Wrap an application.

        Args:
            app: the WSGI application.
            handler: what serves WebSockets: a function that gets the WebSocket, for all paths, or a
                `Router`, which leaves other paths to the application. It is called with a WebSocket
                that is accepted; when it returns, that is closed with 1000; when it raises, with 1011.
                None: the application takes them from `environ["wsgi.websocket"]`.
            options: see `Options`. Those that concern reading a request are the server's here, and
                have no effect: `open_timeout`, `max_line`, `max_headers`, `max_head`, `max_handshakes`,
                `max_connections_per_address`, `trusted_proxies`.

        Raises:
            TypeError, ValueError: for an application or handler that cannot be called, and as `Options`.
        """
        if not callable(app):
            raise TypeError(f"app takes a WSGI application, not {app!r}")
        if handler is not None and (
            isinstance(handler, type) or not callable(getattr(handler, "match", None))
        ):
            check_handler(handler)
        self.app = app
        self.options = make_options(f"{type(self).__name__}()", options, others=("app", "handler"))
        self.connections: set[WebSocket] = set()
        self.stats = Stats()
        self._handler = handler
        self._keepalive: tuple[Any, Keepalive] | None = None
        #: Those that the application has, and has neither accepted nor rejected.
        self._pending: set[WebSocket] = set()
        self._stopping = False
        self._warned_of_cookie = False
        self._full_log = Throttle(_LOG_INTERVAL)
        self._impossible_log = Throttle(_LOG_INTERVAL)
        self._refusal_log = Lines(logger, REFUSAL_LINES)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request (PEP 3333)."""
        if "HTTP_UPGRADE" not in environ or not asks_for_websocket(environ):
            return self.app(environ, start_response)
        outer = environ.get("geventws.upgrade")
        if outer is not None:
            # Another one of these stands outside; what is agreed on in here is what counts.
            if outer.phase is not Phase.PENDING:
                return self.app(environ, start_response)
            return self._serve(environ, start_response, outer, False)
        try:
            takeover = find(environ)
        except CannotTakeOver as error:
            self._impossible_log.log(logging.ERROR, "%s: answered %d: %s", _path(environ), 501, str(error))
            return _answer(Response(501, body=f"501 Not Implemented\n{error}\n"), environ, start_response)
        upgrade = Upgrade(takeover, start_response, b"" if has_body(environ) else takeover.take_early_data())
        environ["geventws.upgrade"] = upgrade
        if not has_body(environ):
            # The server's is closed, or would wait for bytes that are not for it.
            environ["wsgi.input"] = io.BytesIO()
        with hub_of_this_thread() if takeover.threaded else contextlib.nullcontext():
            return self._serve(environ, start_response, upgrade, True)

    def _serve(
        self, environ: dict[str, Any], start_response: StartResponse, upgrade: Upgrade, outermost: bool
    ) -> Iterable[bytes]:
        """Serve an upgrade request."""
        decision = self._decide(environ, upgrade.takeover)
        if isinstance(decision, Response):
            self._count_refusal(decision.status)
            begin = upgrade.reject if outermost else start_response
            return LastResponse(_answer(decision, environ, begin), self._end_of(upgrade, outermost))
        terms, handler, arguments = decision
        ws = LateWebSocket(upgrade, terms)
        self._pending.add(ws)
        if handler is not None:
            try:
                upgrade.accept(ws, terms)
            except ConnectionClosed as error:
                return self._give_up(upgrade, error)
            finally:
                self._pending.discard(ws)
            self._run(ws, handler, arguments)
            return []
        return self._serve_late(environ, start_response, upgrade, ws, outermost)

    def _decide(
        self, environ: dict[str, Any], takeover: Takeover
    ) -> tuple[Terms, Callable[..., Any] | None, dict[str, Any]] | Response:
        """Check a handshake; choose its terms and who serves it, or the answer that refuses it."""
        name = _path(environ)
        try:
            if self._stopping or takeover.stopping:
                raise InvalidHandshake(STOPPING, status=503)
            limit = self.options.max_connections
            if limit is not None and len(self.connections) + len(self._pending) >= limit:
                self._full_log.log(
                    logging.WARNING, "refusing WebSockets: %d are open (max_connections)", limit
                )
                self.stats.refused_full += 1
                raise InvalidHandshake(f"{limit} connections are open (max_connections)", status=503)
            request = make_request(environ)
            if self.options.process_request is not None:
                response = self._process_request(request)
                if response is not None:
                    return response
            handler: Any = self._handler
            arguments: dict[str, Any] = {}
            match = getattr(handler, "match", None)
            if match is not None:
                handler, arguments = match(request.path) or (None, {})
            terms = Terms(
                request,
                agree(request, self.options),
                self.options,
                keepalive=lambda: self._get_keepalive(takeover.threaded),
                on_open=self._on_open,
                on_end=self._on_end,
            )
            return terms, handler, arguments
        except InvalidHandshake as error:
            self._refusal_log.log(logging.INFO, "refused %s with %d: %s", name, error.status, str(error))
            return error_response(error)

    def _process_request(self, request: Request) -> Response | None:
        assert self.options.process_request is not None
        response = self.options.process_request(request)
        if response is not None and (not isinstance(response, Response) or response.status == 101):
            raise TypeError(f"process_request returned {response!r}, not None or a Response other than 101")
        return response

    def _get_keepalive(self, threaded: bool) -> Keepalive | None:
        interval, timeout = self.options.ping_interval, self.options.ping_timeout
        if interval is None:
            return None
        hub = gevent.get_hub()
        if threaded:
            # A hub of its own, which goes with the connection.
            return Keepalive(hub, interval, timeout)
        if self._keepalive is None or self._keepalive[0] is not hub:
            self._keepalive = hub, Keepalive(hub, interval, timeout)
        return self._keepalive[1]

    def _count_refusal(self, status: int) -> None:
        self.stats.refused += 1
        self.stats.refusals[status] = self.stats.refusals.get(status, 0) + 1

    def _on_end(self, ws: WebSocket) -> None:
        self.connections.discard(ws)
        cause = close_cause(ws)
        count_end(self.stats, ws, cause)
        log_end(ws, cause)

    def _on_open(self, ws: WebSocket) -> None:
        self._pending.discard(ws)
        self.connections.add(ws)
        self.stats.opened += 1
        if self._stopping:
            ws.begin_close(1001, STOPPING)

    def _run(self, ws: WebSocket, handler: Callable[..., Any], arguments: dict[str, Any]) -> None:
        """Run what serves an accepted WebSocket, to the end of TCP."""
        try:
            run_handler(ws, handler, arguments)
        finally:
            if isinstance(ws, ThreadedWebSocket):
                ws.retire()

    # The application with a WebSocket that is not accepted yet

    def _serve_late(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        upgrade: Upgrade,
        ws: LateWebSocket,
        outermost: bool,
    ) -> Iterable[bytes]:
        """Call the application and go through what it returns, as far as to know its answer."""
        held = HeldResponse(upgrade, upgrade.reject if outermost else start_response)
        environ["wsgi.websocket"] = ws
        failure: BaseException | None = None
        result: Any = None
        rest = None
        try:
            result = self.app(environ, held.start_response)
            iterator = iter(result)
            for chunk in iterator:
                # What comes behind the 101 is dropped.
                if chunk and upgrade.phase is not Phase.ACCEPTED:
                    held.commit()
                    rest = LastResponse(result, self._end_of(upgrade, outermost), chunk, iterator)
                    return rest
            if upgrade.phase is Phase.PENDING:
                held.commit()
                rest = LastResponse(result, self._end_of(upgrade, outermost), b"", iterator)
                return rest
        except BaseException as error:
            failure = error
        finally:
            self._pending.discard(ws)
            if rest is None:
                failure = _close(result, failure)
            if outermost:
                # Whoever has kept the WebSocket is to find it closed.
                upgrade.forsake()
        if upgrade.phase is Phase.ACCEPTED:
            # The environ and what it leads to are no cycle then.
            environ["wsgi.websocket"] = None
            self._finish(ws, held, failure)
            return []
        if upgrade.phase is Phase.LOST:
            return self._give_up(upgrade, failure)
        assert failure is not None
        raise failure

    @staticmethod
    def _end_of(upgrade: Upgrade, outermost: bool) -> Callable[[], None]:
        """What is done behind the response: only the outermost of these ends TCP."""
        return upgrade.takeover.linger if outermost else lambda: None

    def _finish(self, ws: WebSocket, held: HeldResponse, failure: BaseException | None) -> None:
        """The application is done with a WebSocket that it has used."""
        if type(ws) is LateWebSocket:
            # It was accepted by a middleware further in, which has seen to its end.
            if isinstance(failure, KeyboardInterrupt):
                raise failure
            if failure is not None and not isinstance(failure, (ConnectionClosed, gevent.GreenletExit)):
                path = shorten(ws.request.path)
                logger.error("%r: the application raised behind its WebSocket", path, exc_info=failure)
            return
        if any(name.lower() == "set-cookie" for name, _ in held.headers) and not self._warned_of_cookie:
            self._warned_of_cookie = True
            logger.warning(
                "%r: a cookie that was set after the WebSocket was accepted is lost; "
                "send it with ws.accept(headers=[('Set-Cookie', ...)])",
                ws.request.path,
            )

        def outcome(ws: WebSocket) -> None:
            if failure is not None:
                raise failure
            if held.code() >= 500:
                # A framework has turned an exception into this, and has logged it.
                ws.begin_close(1011, "internal error")

        self._run(ws, outcome, {})

    def _give_up(self, upgrade: Upgrade, failure: BaseException | None) -> Iterable[bytes]:
        """TCP has ended before there was an answer; the server gets one for its log."""
        if failure is not None and failure is not upgrade.lost:
            raise failure
        if upgrade.failure is None:
            upgrade.takeover.reject(upgrade.start_response, "400 Bad Request", [("Content-Length", "0")])
        return []

    # Stopping

    def shutdown(self, timeout: float | None = None) -> None:
        """Close all WebSockets with 1001 and wait for them; new ones get 503 from now on.

        For servers that do not tell when they stop. On the event loop itself, as in a signal handler,
        it does not wait.

        Args:
            timeout: seconds to wait, then the rest is cut; None for the option `stop_timeout`.

        Raises:
            TypeError, ValueError: for a timeout that is no number or negative.
        """
        check_timeout(timeout)
        self._stopping = True
        for ws in list(self.connections):
            ws.begin_close(1001, STOPPING)
        hub = get_hub_if_exists()
        if hub is not None and gevent.getcurrent() is hub:
            return
        if timeout is None:
            timeout = self.options.stop_timeout
        until = None if timeout is None else time.monotonic() + timeout
        for ws in list(self.connections):
            ws.wait_closed(None if until is None else max(0.0, until - time.monotonic()))
        for ws in list(self.connections):
            ws.abort()


def _close(result: Any, failure: BaseException | None) -> BaseException | None:
    """Close what the application has returned; returns the first exception there was."""
    close = getattr(result, "close", None)
    if close is not None:
        try:
            close()
        except BaseException as error:
            return error if failure is None else failure
    return failure


def _answer(response: Response, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Give a response of ours to the server."""
    headers = response.headers.items()
    # RFC 9110 section 9.3.2: no content in answer to HEAD.
    body = response.body if environ.get("REQUEST_METHOD") != "HEAD" else b""
    start_response(
        f"{response.status} {response.reason}", [*headers, ("Content-Length", str(len(response.body)))]
    )
    return [body] if body else []


def _path(environ: dict[str, Any]) -> str:
    """Return a request's path for the log."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return f"{environ.get('REMOTE_ADDR') or 'a Unix socket'}: {shorten(path)!r}"
