"""Masking keys for a client: unpredictable and fresh for every frame (RFC 6455 section 5.3).

The Python twin of keys.pyx: the two have the same functions and the same results; the compiled one is chosen
by Python's import system where it was built.
"""

from __future__ import annotations

import os

__all__ = ["count_keys", "drop_keys", "next_key"]

#: One call of the system gives a thousand keys.
BATCH = 4096

_keys: list[bytes] = []


def next_key() -> bytes:
    """Return a masking key that was never returned before: four octets of the system's entropy."""
    while True:
        try:
            # In one step, for other threads draw too.
            return _keys.pop()
        except IndexError:
            octets = os.urandom(BATCH)
            _keys.extend([octets[at : at + 4] for at in range(BATCH - 4, -1, -4)])


def count_keys() -> int:
    """Return how many keys there are without another call of the system."""
    return len(_keys)


def drop_keys() -> None:
    """Forget the keys that were not returned yet."""
    _keys.clear()


# Two processes must never draw from the same batch.
os.register_at_fork(after_in_child=drop_keys)
