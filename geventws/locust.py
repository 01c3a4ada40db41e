"""Load tests with Locust: a user that talks over WebSockets, and what is reported of it.

Needs Locust, which the extra `locust` installs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from gevent import GreenletExit
from locust import User

from .client import connect
from .websocket import WebSocket

__all__ = ["WebSocketUser"]


_SCHEMES = frozenset({"ws", "wss", "ws+unix", "http", "https"})


def _size(data: Any) -> int:
    """Return the bytes of a message."""
    if isinstance(data, str):
        return len(data) if data.isascii() else len(data.encode())
    return memoryview(data).nbytes


class WebSocketUser(User):  # type: ignore[misc]
    """A user of Locust with WebSockets.

    Example::

        class Asker(WebSocketUser):
            host = "ws://127.0.0.1:8888"
            wait_time = between(1, 2)

            def on_start(self):
                self.ws = self.connect("/chat")

            @task
            def ask(self):
                self.ask_for(self.ws, "question", name="question")

    What counts as a request is the class's own choice: each of `connect`, `send` and `ask_for` reports one,
    and `measure` whatever stands in its block. A failure is reported as one, and raised.

    Attributes:
        connect_options: arguments for `geventws.connect` of each connection.
    """

    abstract = True

    connect_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._websockets: list[WebSocket] = []

    @contextmanager
    def measure(self, request_type: str, name: str) -> Iterator[dict[str, Any]]:
        """Report the time that a block takes as one request.

        Args:
            request_type: its kind, for the report: "WSConnect", "WSSend", "WSAsk", or one of your own.
            name: which one.

        Returns:
            A dict of what is reported besides: "response_length" in bytes, "response", "name".
        """
        facts: dict[str, Any] = {"name": name, "response_length": 0, "response": None}
        failure: BaseException | None = None
        begun = time.perf_counter()
        try:
            yield facts
        except GreenletExit:
            # The test ends: that is no answer, and no failure.
            begun = -1.0
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            if begun >= 0:
                self.environment.events.request.fire(
                    request_type=request_type,
                    response_time=(time.perf_counter() - begun) * 1000,
                    context=self.context(),
                    exception=failure,
                    **facts,
                )

    def connect(self, path: str = "", *, name: str | None = None, **options: Any) -> WebSocket:
        """Open a WebSocket; reported as "WSConnect". It is closed when the user stops.

        Args:
            path: path and query behind `host`, or a whole URI.
            name: for the report. Default: the path.
            options: for `geventws.connect`, over those in `connect_options`.

        Raises:
            ValueError: for a path where there is no host.
        """
        # A URI may stand in a query too.
        if path.partition(":")[0].lower() in _SCHEMES:
            uri = path
        elif self.host:
            uri = f"{self.host}{path}"
        else:
            raise ValueError(
                f"{path!r} is no whole URI, and there is no host: give --host, or one to the class"
            )
        # Locust's --host is often that of HTTP.
        for scheme in ("http", "https"):
            if uri.startswith(f"{scheme}://"):
                uri = uri.replace("http", "ws", 1)
        with self.measure("WSConnect", name or path or "/"):
            ws = connect(uri, **{**self.connect_options, **options})
        self._websockets = [other for other in self._websockets if not other.closed]
        self._websockets.append(ws)
        return ws

    def send(self, ws: WebSocket, data: Any, *, name: str = "send") -> None:
        """Send a message; reported as "WSSend", with the time until it was handed to the system or kept."""
        with self.measure("WSSend", name) as facts:
            ws.send(data)
            facts["response_length"] = _size(data)

    def ask_for(
        self,
        ws: WebSocket,
        data: Any,
        *,
        name: str = "ask",
        timeout: float | None = 10.0,
        matches: Callable[[Any], bool] | None = None,
    ) -> Any:
        """Send a message and wait for the answer; reported as "WSAsk", with the time of the round trip.

        Args:
            ws: the WebSocket.
            data: the message.
            name: for the report.
            timeout: seconds until it is a failure, a TimeoutError; None for no limit.
            matches: `callable(message)` that knows the answer; other messages are dropped. Default: the
                next message is it.

        Returns:
            The answer.
        """
        with self.measure("WSAsk", name) as facts:
            end = None if timeout is None else time.monotonic() + timeout
            ws.send(data)
            while True:
                answer = ws.receive(None if end is None else max(0.0, end - time.monotonic()))
                if matches is None or matches(answer):
                    facts["response"] = answer
                    facts["response_length"] = _size(answer)
                    return answer
                # There may always be another one, and then `receive` does not look at the clock.
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError(f"no answer within {timeout:g} seconds")

    def on_stop(self) -> None:
        """Close what is open. Call it from your own."""
        for ws in self._websockets:
            ws.begin_close(1000, "")
        self._websockets = []
