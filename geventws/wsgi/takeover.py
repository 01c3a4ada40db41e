"""How each WSGI server gives its connection away, and how it gets it back.

A `Takeover` is one connection of one server: where its socket is, where the bytes are that the server
read behind the request, how the 101 goes out so that the server writes one right line into its access log,
and how it is kept from ever taking a later byte for a request.

`find` chooses among:

* gevent.pywsgi, plain or TLS; gunicorn's GeventPyWSGIWorker; our own handler
* gunicorn's gevent and gthread workers
* Werkzeug's development server
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import gevent.socket
from gevent.pywsgi import WSGIHandler

from ..exceptions import WebSocketError
from ..serving import Agreement

__all__ = ["CannotTakeOver", "Takeover", "fields_of", "find"]

#: Seconds and bytes that are read away behind a response that rejects, so that it arrives.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 256 * 1024

_CHUNK = 64 * 1024

Fields = Iterable[tuple[str, str]] | Mapping[str, str]
Write = Callable[[bytes], Any]
StartResponse = Callable[..., Write]

_SERVERS = (
    "these do: gevent.pywsgi; gunicorn -k gevent, -k geventws.gunicorn.GeventWebSocketWorker "
    "or -k gthread; Werkzeug's development server (flask run)"
)

_OUTERMOST = (
    "another middleware keeps the server's write() to itself, without which no 101 can go out: "
    "make WebSocketMiddleware the outermost one"
)


class CannotTakeOver(WebSocketError):
    """This server does not give its connection away."""

    kind = "wsgi.cannot_take_over"

    def __init__(self, why: str) -> None:
        super().__init__(f"this server cannot open WebSockets ({why}); {_SERVERS}")


class BorrowedSocket:
    """A server's socket: at the end of the WebSocket it is shut down, and closed by the server."""

    __slots__ = ("_socket", "fileno", "gettimeout", "settimeout", "shutdown")

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.fileno = sock.fileno
        self.gettimeout = sock.gettimeout
        self.settimeout = sock.settimeout
        self.shutdown = sock.shutdown

    def close(self) -> None:
        """End TCP in both directions. The descriptor stays open for the server, which closes it."""
        shut_down(self._socket)
        # What the server still does with it meets the end of TCP at once; it expects it to block.
        self._socket.settimeout(None)


class BorrowedTLSSocket(BorrowedSocket):
    """The same over TLS."""

    __slots__ = ("recv_into", "unwrap", "write")

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.recv_into = sock.recv_into
        self.unwrap = sock.unwrap
        self.write = sock.write


def shut_down(sock: Any) -> None:
    """End TCP in both directions. The kernel takes nothing more into the queue; what is in it stays there."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The peer was faster.
        pass


class Takeover:
    """One connection of a server, from its upgrade request on.

    Attributes:
        socket: the server's socket.
        threaded: the server gives each connection a thread, and the socket blocks it.
        stopping: the server is about to stop and opens no new WebSockets.
        CLOSING_FIELDS: header fields that a response which is the connection's last has here.
    """

    CLOSING_FIELDS: ClassVar[tuple[tuple[str, str], ...]] = ()

    threaded = False
    stopping = False

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        #: The server's object for a response that rejects, which knows whether it was sent.
        self._response: Any = None

    def take_early_data(self) -> bytes:
        """Take the bytes that the server has read behind the request; it reads no other request after this.

        Must not be called for a request with a body.
        """
        raise NotImplementedError

    def send_head(
        self, start_response: StartResponse, agreement: Agreement, headers: Fields, timeout: float | None
    ) -> None:
        """Answer 101.

        Args:
            start_response: the server's, perhaps wrapped by other middlewares.
            agreement, headers: what was agreed, and the fields of the application.
            timeout: seconds that it may take.

        Raises:
            RuntimeError: another middleware is in the way; nothing was sent.
            TypeError, ValueError: for header fields that cannot stand in it; nothing was sent.
            OSError: the peer is gone.
        """
        raise NotImplementedError

    def borrow(self) -> BorrowedSocket:
        """Return the socket for a WebSocket."""
        return (BorrowedTLSSocket if hasattr(self.socket, "unwrap") else BorrowedSocket)(self.socket)

    def opened(self, ws: Any) -> None:
        """A WebSocket was opened on this connection."""

    def ended(self, ws: Any) -> None:
        """It is over."""

    def reject(self, start_response: StartResponse, *arguments: Any) -> Write:
        """Begin a response that is not 101 and the last one on this connection."""
        status, headers, *rest = arguments
        if self.CLOSING_FIELDS:
            headers = [field for field in headers if field[0].lower() != "connection"]
            headers += self.CLOSING_FIELDS
        write = start_response(status, headers, *rest)
        self._response = getattr(write, "__self__", None)
        self.make_last(write)
        return write

    def make_last(self, write: Write) -> None:
        """Tell the server that the response which `write` belongs to is this connection's last."""

    def linger(self) -> None:
        """End TCP behind a response that rejects, so that it arrives whatever else the client has sent.

        Where another middleware has kept it to itself until now, it is left to the server to end.

        RFC 9112 section 9.6: bytes that nobody read make the kernel reset TCP, and the reset destroys the
        response on its way. What comes is not looked at: it is no other request.
        """
        if not getattr(self._response, "headers_sent", False):
            return
        sock = self.socket
        until = time.monotonic() + _LINGER_SECONDS
        left = _LINGER_BYTES
        try:
            if hasattr(sock, "unwrap"):
                sock.settimeout(0)
                try:
                    sock.unwrap()
                except (OSError, ValueError):
                    pass
            sock.shutdown(socket.SHUT_WR)
            while left > 0 and (seconds := until - time.monotonic()) > 0:
                sock.settimeout(seconds)
                count = len(sock.recv(_CHUNK))
                if count == 0:
                    break
                left -= count
        except OSError:
            pass
        shut_down(sock)
        try:
            sock.settimeout(None)
        except OSError:
            pass


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """Take the head of our 101 apart again, for who takes fields: it was checked as it was put together."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def _take_buffer(sock: Any, rfile: Any) -> bytes:
    """Take what is in the buffer of a server's BufferedReader."""
    timeout = sock.gettimeout()
    # With an empty buffer `peek` would wait for bytes from the socket.
    sock.settimeout(0)
    try:
        data: bytes = rfile.read1(len(rfile.peek(1)))
    except OSError:
        # A TLS socket says so where nothing has come.
        data = b""
    finally:
        sock.settimeout(timeout)
    return data


class PyWSGITakeover(Takeover):
    """gevent.pywsgi: its file is in `wsgi.input`, its socket behind that."""

    CLOSING_FIELDS = (("Connection", "close"),)

    def __init__(self, sock: Any, rfile: Any) -> None:
        super().__init__(sock)
        self._rfile = rfile

    def take_early_data(self) -> bytes:
        """See `Takeover`. Where its file is closed, pywsgi reads no other request."""
        data = _take_buffer(self.socket, self._rfile)
        self._rfile.close()
        return data

    def send_head(
        self, start_response: StartResponse, agreement: Agreement, headers: Fields, timeout: float | None
    ) -> None:
        """See `Takeover`."""
        fields = fields_of(agreement.response(headers))
        write = start_response("101 Switching Protocols", fields)
        if not isinstance(getattr(write, "__self__", None), WSGIHandler):
            raise RuntimeError(_OUTERMOST)
        self.make_last(write)
        self.socket.settimeout(timeout)
        write(b"")

    def make_last(self, write: Write) -> None:
        """See `Takeover`."""
        handler = getattr(write, "__self__", None)
        if isinstance(handler, WSGIHandler):
            handler.close_connection = True

    def linger(self) -> None:
        """See `Takeover`. A body that pywsgi would go on waiting for ends here."""
        if not self._rfile.closed:
            _take_buffer(self.socket, self._rfile)
        super().linger()


class GunicornTakeover(Takeover):
    """gunicorn's gevent and gthread workers: the socket is in the environ, the bytes in its "unreader"."""

    # It sets Connection itself, and leaves out ours.

    def __init__(self, sock: Any, unreader: Any, threaded: bool) -> None:
        super().__init__(sock)
        self._unreader = unreader
        self.threaded = threaded

    def take_early_data(self) -> bytes:
        """See `Takeover`."""
        unreader = self._unreader
        data: bytes = unreader.buf.getvalue()
        unreader.buf = io.BytesIO()
        # Where its parser goes for more bytes, whatever else decides that it shall: here are none.
        unreader.chunk = lambda *_: b""
        return data

    def send_head(
        self, start_response: StartResponse, agreement: Agreement, headers: Fields, timeout: float | None
    ) -> None:
        """See `Takeover`."""
        fields = fields_of(agreement.response(headers))
        write = start_response("101 Switching Protocols", fields)
        response: Any = getattr(write, "__self__", None)
        if not hasattr(response, "force_close") or not hasattr(response, "chunked"):
            raise RuntimeError(_OUTERMOST)
        # Up to 23 it would frame a 101 as a chunked response.
        response.chunked = False
        response.force_close()
        self.socket.settimeout(timeout)
        write(b"")

    def make_last(self, write: Write) -> None:
        """See `Takeover`."""
        force_close = getattr(getattr(write, "__self__", None), "force_close", None)
        if force_close is not None:
            force_close()


class WerkzeugTakeover(Takeover):
    """Werkzeug's development server: a thread for each connection, one request on each.

    Its own head would say `Connection: close` beside `Connection: Upgrade`, so that ours is sent around it.
    It is told of the 101 all the same: when the WebSocket is over it tries to send that, which writes the
    line into its log and finds TCP ended.
    """

    def __init__(self, sock: Any, rfile: Any, threaded: bool) -> None:
        super().__init__(sock)
        self._rfile = rfile
        self.threaded = threaded

    def take_early_data(self) -> bytes:
        """See `Takeover`."""
        return _take_buffer(self.socket, self._rfile)

    def send_head(
        self, start_response: StartResponse, agreement: Agreement, headers: Fields, timeout: float | None
    ) -> None:
        """See `Takeover`."""
        head = agreement.response(headers)
        start_response("101 Switching Protocols", fields_of(head))
        self.socket.settimeout(timeout)
        self.socket.sendall(head)

    def make_last(self, write: Write) -> None:
        """See `Takeover`. Behind a response Werkzeug reads on for as long as anything comes."""
        # By another name of it: shutting down a TLS socket would end its encryption, too.
        with socket.socket(fileno=os.dup(self.socket.fileno())) as twin:
            try:
                twin.shutdown(socket.SHUT_RD)
            except OSError:
                pass


def find(environ: dict[str, Any]) -> Takeover:
    """Return how the connection of this request is taken over.

    Raises:
        CannotTakeOver: its server does not give it away.
    """
    handler = environ.get("geventws.handler")
    if handler is not None:
        return handler.take_over()  # type: ignore[no-any-return]
    if environ.get("SERVER_PROTOCOL", "").startswith(("HTTP/2", "HTTP/3")):
        raise CannotTakeOver("a request of HTTP/2 has no connection of its own")
    body = environ.get("wsgi.input")
    if "gunicorn.socket" in environ:
        return _find_gunicorn(environ, body)
    rfile = getattr(body, "rfile", body)
    if "werkzeug.socket" in environ:
        sock = environ["werkzeug.socket"]
        if not hasattr(rfile, "peek"):
            # Chunked: it is refused for its body.
            rfile = io.BufferedReader(io.BytesIO())
        return WerkzeugTakeover(sock, rfile, not _is_cooperative(sock))
    # CPython's SocketIO has no public name for its socket.
    sock = getattr(getattr(rfile, "raw", None), "_sock", None)
    if not _is_cooperative(sock):
        raise CannotTakeOver(
            f"{environ.get('SERVER_SOFTWARE') or 'unknown'} gives no access to its connection"
        )
    return PyWSGITakeover(sock, rfile)


def _find_gunicorn(environ: dict[str, Any], body: Any) -> Takeover:
    sock = environ["gunicorn.socket"]
    threaded = not _is_cooperative(sock)
    if threaded and not environ.get("wsgi.multithread"):
        raise CannotTakeOver("gunicorn's sync worker serves one request at a time")
    reader = getattr(body, "reader", None)
    if not hasattr(reader, "read"):
        raise CannotTakeOver("this worker of gunicorn does not tell what it has read")
    unreader = getattr(reader, "unreader", None)
    if not hasattr(unreader, "buf"):
        # A chunked body has none: it is refused for that.
        unreader = _NoUnreader()
    return GunicornTakeover(sock, unreader, threaded)


class _NoUnreader:
    """Stands in where gunicorn keeps none that can be reached."""

    buf = io.BytesIO()


def _is_cooperative(sock: Any) -> bool:
    """Tell whether this is a socket of gevent, which waits for a greenlet and not for a thread."""
    return isinstance(sock, gevent.socket.socket)
