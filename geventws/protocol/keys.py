"""Masking keys for a client: unpredictable and fresh for every frame (RFC 6455 section 5.3).

Hot: compiled with keys.pxd (`benchmarks/`, row "client-small").
"""

from __future__ import annotations

import os

__all__ = ["next_key"]

#: One call of the system gives a thousand keys.
_BATCH = 4096

_keys: list[bytes] = []


def next_key() -> bytes:
    """Return a masking key that was never returned before: four octets of the system's entropy."""
    try:
        return _keys.pop()
    except IndexError:
        octets = os.urandom(_BATCH)
        _keys.extend([octets[at : at + 4] for at in range(0, _BATCH, 4)])
        return _keys.pop()


# Two processes must never draw from the same batch.
os.register_at_fork(after_in_child=_keys.clear)
