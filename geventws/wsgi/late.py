"""A WebSocket that is not accepted yet, and what becomes of its request.

An application under WSGI may answer an upgrade request with an ordinary response, or use the WebSocket:
the first use of it sends the 101. Until then it is a `LateWebSocket`; with the 101 the very same object
becomes a `WSGIWebSocket`, on which nothing is slower than on any other.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gevent.lock import Semaphore

from ..broadcast import Apart
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError, InvalidState
from ..protocol.headers import parse_token_list
from ..serving import prepare_socket
from ..websocket import State, WebSocket, send_to_all
from .takeover import shut_down
from .threads import ThreadedWebSocket, get_ident

if TYPE_CHECKING:
    from types import TracebackType

    from ..keepalive import Keepalive
    from ..options import Options
    from ..pong import Pong
    from ..protocol.http import Request
    from ..serving import Agreement
    from .takeover import Fields, StartResponse, Takeover, Write

__all__ = ["LateWebSocket", "Phase", "Upgrade", "WSGIWebSocket"]


class Phase(enum.Enum):
    """What has become of an upgrade request."""

    PENDING = 0
    ACCEPTED = 1
    #: Answered with something else than 101.
    REJECTED = 2
    #: TCP ended before either.
    LOST = 3


class Upgrade:
    """A request that asks for a WebSocket, until it is answered.

    Attributes:
        takeover: the connection.
        phase: what has become of it.
        answer: the status line that it was rejected with, or "".
        start_response: the server's.
        failure: why a 101 did not go out for which `start_response` was called, or None.
        lost: what `receive` and `send` raise where TCP ended before there was an answer, or None.
    """

    def __init__(self, takeover: Takeover, start_response: StartResponse, early_data: bytes) -> None:
        self.takeover = takeover
        self.start_response = start_response
        self.phase = Phase.PENDING
        self.answer = ""
        self._early_data = early_data
        self.lost: ConnectionClosed | None = None
        self._thread = get_ident()
        #: A greenlet that answers may wait for the socket, and another one want to answer meanwhile.
        self._lock = Semaphore(1)
        #: Why a 101 could not go out, for which start_response was called.
        self.failure: BaseException | None = None

    def accept(
        self,
        ws: WebSocket,
        terms: Terms,
        subprotocol: str | None = None,
        headers: Fields = (),
        *,
        explicit: bool = False,
    ) -> None:
        """Answer 101 and open `ws`.

        Raises:
            InvalidState: it was answered already, with 101 only where this call is an `explicit` one.
            ConcurrencyError: this is another thread than the request's.
            ConnectionClosed: the peer is gone.
            RuntimeError: another middleware is in the way.
            TypeError, ValueError: for a subprotocol or header fields that cannot be.
        """
        if get_ident() != self._thread and self.takeover.threaded:
            raise ConcurrencyError(
                "a WebSocket is accepted in the thread of its request: call accept() there first"
            )
        with self._lock:
            if self.phase is Phase.ACCEPTED and not explicit and type(ws) is not LateWebSocket:
                # By another greenlet, a moment ago.
                return
            self._check_pending()
            agreement = terms.choose(subprotocol)
            try:
                self.takeover.send_head(self.start_response, agreement, headers, terms.options.write_timeout)
                prepare_socket(self.takeover.socket, terms.options)
            except OSError as error:
                self.failure = error
                self.lose(f"the peer was gone before the 101: {error}")
                self._check_pending()
            except (TypeError, ValueError):
                # Of the header fields; start_response was not called.
                raise
            except Exception as error:
                self.failure = error
                raise
            except BaseException as error:
                # Killed in the middle of it.
                self.failure = error
                self.lose("the greenlet was killed while it sent the 101")
                raise
            try:
                self._open(ws, terms, agreement)
            except BaseException as error:
                # It has no connection, and must not be taken for one that has.
                ws.__class__ = LateWebSocket
                self.failure = error
                self.lose("an internal error")
                raise
            self.phase = Phase.ACCEPTED
            ws.__dict__.pop("_upgrade", None)
            ws.__dict__.pop("_terms", None)
            terms.on_open(ws)
            self.takeover.opened(ws)

    def _open(self, ws: WebSocket, terms: Terms, agreement: Agreement) -> None:
        takeover = self.takeover

        def on_end(ws: WebSocket) -> None:
            takeover.ended(ws)
            terms.on_end(ws)

        ws.__class__ = ThreadedWSGIWebSocket if takeover.threaded else WSGIWebSocket
        if isinstance(ws, ThreadedWSGIWebSocket):
            ws.bind(terms.options)
        WebSocket.__init__(
            ws,
            takeover.borrow(),
            agreement.connection(terms.options),
            terms.request,
            terms.options,
            subprotocol=agreement.subprotocol,
            extensions=agreement.extensions,
            keepalive=terms.keepalive(),
            on_end=on_end,
            early_data=self._early_data,
        )

    def reject(self, status: str, headers: list[tuple[str, str]]) -> Write:
        """Begin the response that is not 101."""
        with self._lock:
            self._check_pending()
            self.phase = Phase.REJECTED
            self.answer = status
            error = self.failure
            if error is None:
                return self.takeover.reject(self.start_response, status, headers)
            return self.takeover.reject(
                self.start_response, status, headers, (type(error), error, error.__traceback__)
            )

    def _check_pending(self) -> None:
        if self.lost is not None:
            raise self.lost
        if self.phase is Phase.ACCEPTED:
            raise InvalidState("this WebSocket was accepted already")
        if self.phase is Phase.REJECTED:
            why = f"was answered with {self.answer!r} already" if self.answer else "has ended without it"
            raise InvalidState(f"this WebSocket cannot be used: its request {why}")

    def forsake(self) -> None:
        """The application has raised, or said nothing: what comes of the request is the server's affair."""
        with self._lock:
            if self.phase is Phase.PENDING:
                self.phase = Phase.REJECTED

    def lose(self, detail: str) -> None:
        """TCP is over before there was an answer."""
        if self.phase is Phase.PENDING:
            self.phase = Phase.LOST
            self.lost = ConnectionClosedError(None, None, None, detail)
            shut_down(self.takeover.socket)


class Terms:
    """On which terms a request may become a WebSocket: those of one middleware.

    Attributes:
        request, agreement, options: what was asked, agreed, and set.
        on_open, on_end: called with the WebSocket.
        keepalive: called for what sends the Pings.
    """

    def __init__(
        self,
        request: Request,
        agreement: Agreement,
        options: Options,
        *,
        keepalive: Callable[[], Keepalive | None],
        on_open: Callable[[WebSocket], None],
        on_end: Callable[[WebSocket], None],
    ) -> None:
        self.request = request
        self.agreement = agreement
        self.options = options
        self.keepalive = keepalive
        self.on_open = on_open
        self.on_end = on_end

    def choose(self, subprotocol: str | None) -> Agreement:
        """Return the agreement with the subprotocol that the application wants."""
        if subprotocol is None:
            return self.agreement
        name = "Sec-WebSocket-Protocol"
        offered = parse_token_list(self.request.headers.get_all(name), name)
        # RFC 6455 section 4.1: a client fails a connection with a subprotocol that it did not ask for.
        if subprotocol not in offered:
            # Not what was offered: that may be somebody's credentials.
            raise ValueError(
                f"subprotocol {subprotocol!r} is none of the {len(offered)} that the client offers"
            )
        agreement = self.agreement
        return type(agreement)(agreement.key, subprotocol, agreement.deflate)


class WSGIWebSocket(WebSocket):
    """A WebSocket under WSGI."""

    __slots__ = ()

    def accept(self, subprotocol: str | None = None, headers: Fields = ()) -> None:
        """Answer 101 now; any use of the WebSocket does that otherwise.

        Args:
            subprotocol: one that the client offers; None for what the option `subprotocols` has chosen.
            headers: fields for the response, such as cookies: pairs or a mapping.

        Raises:
            InvalidState: if it was accepted, or the request answered with another response.
            ConnectionClosed: if the peer is gone.
            TypeError, ValueError: for a subprotocol that was not offered, or impossible fields.
        """
        raise InvalidState("this WebSocket was accepted already")

    def _accept(self) -> None:
        """Nothing is left to do for a method that was looked up before: in `ws.send(ws.receive())`, say."""


class ThreadedWSGIWebSocket(ThreadedWebSocket, WSGIWebSocket):
    """The same where each connection has its thread."""

    __slots__ = ()


def _refuse(*_: Any) -> Any:
    raise InvalidState("this WebSocket is not accepted yet")


_not_open: Any = _refuse


class LateWebSocket(WSGIWebSocket, Apart):
    """A WebSocket under WSGI that is not accepted yet."""

    __slots__ = ()

    _upgrade: Upgrade
    _terms: Terms

    def __init__(self, upgrade: Upgrade, terms: Terms) -> None:
        # That of WebSocket runs with the 101.
        self._upgrade = upgrade
        self._terms = terms

    def accept(self, subprotocol: str | None = None, headers: Fields = ()) -> None:
        self._upgrade.accept(self, self._terms, subprotocol, headers, explicit=True)

    accept.__doc__ = WSGIWebSocket.accept.__doc__

    def _accept(self) -> None:
        self._upgrade.accept(self, self._terms)

    # How it stands: none of these accepts.

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.name} {self.request.remote_address!r}>"

    @property
    def request(self) -> Request:  # type: ignore[override]
        return self._terms.request

    @property
    def state(self) -> State:
        pending = self._upgrade.phase is Phase.PENDING
        return State.CONNECTING if pending else State.CLOSED

    @property
    def closed(self) -> bool:
        return self._upgrade.phase is not Phase.PENDING

    @property
    def close_code(self) -> int | None:
        return 1006 if self.closed else None

    @property
    def close_reason(self) -> str | None:
        return "" if self.closed else None

    @property
    def close_error(self) -> ConnectionClosed | None:
        return self._upgrade.lost

    id = latency = subprotocol = response = property(lambda self: None)
    extensions = property(lambda self: "")
    messages_received = messages_sent = messages_discarded = property(lambda self: 0)
    times_slow = bytes_received = bytes_sent = write_buffer_size = opened_at = property(lambda self: 0)
    write_timed_out = reading_paused = property(lambda self: False)

    def abort(self) -> None:
        self._upgrade.lose("aborted here")

    # What the connection ring calls, on what is in it. The compiled methods need a connection.

    handle_input = handle_drained = handle_end = handle_error = _not_open
    handle_slow = put_shared = send_keepalive = fail_timeout = _not_open
    last_received = property(_not_open)

    # All these do. With the 101 this object has another class, whose method is then called.

    def receive(self, timeout: float | None = None) -> Any:
        self._accept()
        return self.receive(timeout)

    recv = receive

    def __iter__(self) -> Any:
        self._accept()
        return self

    def __next__(self) -> Any:
        self._accept()
        return next(self)

    def discard_messages(self) -> None:
        self._accept()
        self.discard_messages()

    def send(self, data: Any, *, compress: bool | None = None) -> None:
        self._accept()
        self.send(data, compress=compress)

    def send_fragments(self, fragments: Iterable[Any]) -> None:
        self._accept()
        self.send_fragments(fragments)

    def ping(self, data: Any = b"") -> Pong:
        self._accept()
        return self.ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._accept()
        self.close(code, reason)

    def end_sending(self, code: int = 1000, reason: str = "") -> None:
        self._accept()
        self.end_sending(code, reason)

    def begin_close(self, code: int, reason: str) -> None:
        self._accept()
        self.begin_close(code, reason)

    def wait_closed(self, timeout: float | None = None) -> bool:
        self._accept()
        return self.wait_closed(timeout)

    def is_slow(self) -> bool:
        return False

    def send_shared(self, shared: Any, compress: bool | None) -> None:
        try:
            self._accept()
        except ConcurrencyError:
            # Of another thread. The others shall have the message all the same.
            return
        # It is of another class now, and may not be apart any more.
        send_to_all([self], shared, compress)

    def __enter__(self) -> WebSocket:
        self._accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # `with` has looked this up before it was accepted.
        type(self).__exit__(self, kind, error, traceback)
