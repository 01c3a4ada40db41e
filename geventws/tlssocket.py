"""Making a TLS socket of a plain one, for server and client, with whichever context the user has.

A peer can be gone at any moment. gevent's constructor takes the descriptor over, then asks whether the peer
is still there, and leaves the descriptor to the garbage collector where it learns otherwise. And it counts on
a context of gevent's, where one of the standard library does as well.
"""

from __future__ import annotations

import _ssl
from typing import TYPE_CHECKING, Any

import gevent.ssl

if TYPE_CHECKING:
    import ssl

__all__ = ["check_context", "wrap_tls"]

#: Where the two `wrap_socket` are from that do what `wrap_tls` does.
_MODULES = frozenset({"ssl", "gevent.ssl"})


def check_context(context: Any) -> None:
    """Raise unless this is a context that `wrap_tls` can use.

    Raises:
        TypeError: it is none, or verifies certificates in a way of its own.
    """
    # Not ssl.SSLContext: that name is given to another class where a process is patched.
    if not isinstance(context, _ssl._SSLContext):
        raise TypeError(f"ssl_context takes an ssl.SSLContext, not {context!r}")
    kind = type(context)
    wrapping = [vars(base)["wrap_socket"].__module__ for base in kind.__mro__ if "wrap_socket" in vars(base)]
    # Nobody would call it: what it verifies would not be verified.
    if not {*wrapping} <= _MODULES:
        raise TypeError(
            f"ssl_context: {kind.__module__}.{kind.__qualname__} has a wrap_socket of its own, which would "
            "block all greenlets: give a context of ssl or gevent.ssl"
        )


class _TLSSocket(gevent.ssl.SSLSocket):  # type: ignore[misc]
    """A TLS socket of gevent that is closed where making it fails: nobody else has it then."""

    def __init__(self, *, sock: Any, _context: ssl.SSLContext, **arguments: Any) -> None:
        try:
            super().__init__(sock=sock, _context=_context, **arguments)
        except BaseException:
            # Without a descriptor the other one has given it to this one.
            if sock.fileno() < 0:
                self.close()
            raise
        # What `sni_callback` gets. A context of gevent's finds this socket by what it gets instead.
        if not isinstance(_context, gevent.ssl.SSLContext) and self._sslobj is not None:
            self._sslobj.owner = self


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
