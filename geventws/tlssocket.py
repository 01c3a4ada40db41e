"""Making a TLS socket of a plain one, for server and client: where that fails, no descriptor stays open.

A peer can be gone at any moment. gevent's constructor takes the descriptor over, then asks whether the peer
is still there, and leaves the descriptor to the garbage collector where it learns otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent.ssl

if TYPE_CHECKING:
    import ssl

__all__ = ["wrap_tls"]


class _TLSSocket(gevent.ssl.SSLSocket):  # type: ignore[misc]
    """A TLS socket of gevent that is closed where making it fails: nobody else has it then."""

    def __init__(self, *, sock: Any, **arguments: Any) -> None:
        try:
            super().__init__(sock=sock, **arguments)
        except BaseException:
            # Without a descriptor the other one has given it to this one.
            if sock.fileno() < 0:
                self.close()
            raise


def wrap_tls(context: ssl.SSLContext, sock: Any, server_hostname: str | None = None) -> Any:
    """Return a TLS socket before its handshake; it has taken over `sock`.

    Args:
        context: of gevent or of the standard library, whose own sockets would block the whole process.
        sock: a socket of gevent; to be closed where this raises.
        server_hostname: whom a client wants to speak to; None for a server.

    Raises:
        OSError: the peer is gone.
        ValueError: for a name that cannot be one.
    """
    return _TLSSocket(
        sock=sock,
        server_side=server_hostname is None,
        server_hostname=server_hostname,
        do_handshake_on_connect=False,
        _context=context,
    )
