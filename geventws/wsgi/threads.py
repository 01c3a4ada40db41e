"""WebSockets on servers with a thread for each connection: each lives in its thread, with a hub of its own.

Other threads may send, close and broadcast all the same. What they ask for is done by the WebSocket's own
thread, which is woken through its event loop; they wait for the outcome, as far as a send waits at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
import gevent.event
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original

from ..broadcast import Apart
from ..exceptions import ConcurrencyError
from ..websocket import WebSocket, as_payload, send_to_all

if TYPE_CHECKING:
    from ..options import Options
    from ..pong import Pong

__all__ = ["ThreadedWebSocket", "get_ident", "hub_of_this_thread"]

# Those of the system, whether or not something is monkey-patched: it is threads that wait here.
get_ident = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")


@contextlib.contextmanager
def hub_of_this_thread() -> Iterator[None]:
    """Let this thread have a hub; one that was made for this is gone, with its descriptors, at the end."""
    if get_hub_if_exists() is not None:
        yield
        return
    try:
        yield
    finally:
        hub = get_hub_if_exists()
        # The main thread's stays: it is for whoever comes next.
        if hub is not None and not hub.loop.default:
            # The hub stands in the callback that has last switched here. It is to come out of it in order.
            gevent.sleep(0)
            hub.destroy()


def _nothing() -> None:
    """For a watcher whose event never comes."""


class _Call:
    """What one thread asks of another, and the outcome."""

    __slots__ = ("_done", "_error", "_function", "_lock", "_loop", "_result", "_switch")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = False
        self._lock: Any = None
        self._loop: Any = None
        self._switch: Any = None
        hub = get_hub_if_exists()
        if hub is None:
            self._lock = _allocate_lock()
            self._lock.acquire()
        else:
            # The other greenlets of this thread go on, and what other threads ask of it is done.
            self._loop = hub.loop
            self._switch = gevent.event.AsyncResult()

    def run(self) -> None:
        """Do it; in the other thread, in a greenlet of its own. The first outcome counts."""
        result, failure = None, None
        try:
            result = self._function()
        except BaseException as error:
            failure = error
        if self._done:
            return
        self._done = True
        self._result, self._error = result, failure
        if self._lock is not None:
            self._lock.release()
            return
        try:
            self._loop.run_callback_threadsafe(self._switch.set, True)
        except Exception:
            # That thread has not waited for it, and its loop is gone.
            pass

    def wait(self) -> Any:
        """Wait for the outcome; in the thread that asks."""
        if self._lock is not None:
            self._lock.acquire()
        else:
            # What another thread will do keeps no loop running: a hub with nothing else alive would end, and
            # say so here (LoopExit).
            held = self._loop.async_()
            held.start(_nothing)
            try:
                self._switch.wait()
            finally:
                held.stop()
                held.close()
        if self._error is not None:
            raise self._error
        return self._result


class ThreadedWebSocket(WebSocket, Apart):
    """A WebSocket whose thread is one among others."""

    __slots__ = ()

    _thread: int
    _loop: Any
    _lock: Any
    _calls: set[_Call] | None
    #: Bytes that broadcasts of other threads have asked for and that are not put out yet.
    _asked: int
    _asked_limit: int | None

    def bind(self, options: Options) -> None:
        """Let it belong to this thread; before `WebSocket.__init__`."""
        self._thread = get_ident()
        self._loop = gevent.get_hub().loop
        self._lock = _allocate_lock()
        self._calls = set()
        self._asked = 0
        self._asked_limit = options.write_limit

    def retire(self) -> None:
        """The thread is about to go: nothing can be asked of it any more. The connection is over."""
        with self._lock:
            calls, self._calls = self._calls, None
        # A copy: each thread that has its answer takes its call out.
        for call in list(calls or ()):
            # It has waited for the end, or comes too late; both say so without waiting.
            call.run()

    def _is_here(self) -> bool:
        return bool(get_ident() == self._thread)

    def _ask(self, function: Callable[[], Any]) -> Any:
        """Have the WebSocket's own thread call `function`, and return or raise what that does."""
        call = _Call(function)
        with self._lock:
            calls = self._calls
            if calls is not None:
                calls.add(call)
                # In a greenlet of its own there: it may wait.
                self._loop.run_callback_threadsafe(gevent.spawn, call.run)
        if calls is None:
            # The connection is over: what needs no thread any more says so itself.
            return function()
        try:
            return call.wait()
        finally:
            calls.discard(call)

    def _do(self, function: Callable[[], Any]) -> Any:
        """Call `function` in the WebSocket's own thread, whichever this is."""
        return function() if self._is_here() else self._ask(function)

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have the WebSocket's own thread call `function` in its hub, and do not wait."""
        with self._lock:
            if self._calls is not None:
                self._loop.run_callback_threadsafe(function, *arguments)

    # What any thread may do

    def send(self, data: Any, *, compress: bool | None = None) -> None:
        if self._is_here():
            WebSocket.send(self, data, compress=compress)
        else:
            payload = as_payload(data)
            self._ask(lambda: WebSocket.send(self, payload, compress=compress))

    def send_fragments(self, fragments: Iterable[Any]) -> None:
        self._do(lambda: WebSocket.send_fragments(self, fragments))

    def ping(self, data: Any = b"") -> Pong:
        pong: Pong = self._do(lambda: WebSocket.ping(self, data))
        # Any thread may wait for it, too.
        pong.do = self._do
        return pong

    def discard_messages(self) -> None:
        self._do(lambda: WebSocket.discard_messages(self))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._do(lambda: WebSocket.close(self, code, reason))

    def end_sending(self, code: int = 1000, reason: str = "") -> None:
        self._do(lambda: WebSocket.end_sending(self, code, reason))

    def abort(self) -> None:
        self._do(lambda: WebSocket.abort(self))

    def wait_closed(self, timeout: float | None = None) -> bool:
        return self._do(lambda: WebSocket.wait_closed(self, timeout))  # type: ignore[no-any-return]

    def begin_close(self, code: int, reason: str) -> None:
        if self._is_here():
            WebSocket.begin_close(self, code, reason)
        else:
            self._tell(WebSocket.begin_close, self, code, reason)

    def is_slow(self) -> bool:
        if WebSocket.is_slow(self):
            return True
        return self._asked_limit is not None and self._asked > self._asked_limit and not self.closed

    def send_shared(self, shared: Any, compress: bool | None) -> None:
        if self._is_here():
            send_to_all([self], shared, compress)
        else:
            # Several threads may ask at once.
            with self._lock:
                self._asked += shared.size + 4
            self._tell(self._send_asked, shared, compress)

    def _send_asked(self, shared: Any, compress: bool | None) -> None:
        """The callback of `send_shared` in this thread's hub."""
        with self._lock:
            self._asked -= shared.size + 4
        send_to_all([self], shared, compress)

    # What its own thread alone may do

    def receive(self, timeout: float | None = None) -> Any:
        self._check_thread()
        return WebSocket.receive(self, timeout)

    recv = receive

    def __next__(self) -> Any:
        self._check_thread()
        return WebSocket.__next__(self)

    def _check_thread(self) -> None:
        if not self._is_here():
            raise ConcurrencyError(
                "receive() in another thread than that of this WebSocket; other threads may send and close"
            )
