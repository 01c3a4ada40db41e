"""Keeping the memory of ended greenlets for the next ones: the Python twin of stacks.pyx.

The two have the same functions. Python cannot do this; here they do nothing.
"""

from __future__ import annotations

__all__ = ["count_kept", "keep_stacks"]

#: Pieces that are kept, at the most: 2 MiB.
MAX_KEPT = 128


def keep_stacks() -> None:
    """Keep the memory of ended greenlets in this process from now on.

    Since 3.11 CPython gives each greenlet that runs Python a piece of 16 KiB for its frames, straight from
    the system, and back to it when the greenlet ends. Both, and the page faults in between, cost about a
    fifth of the server's time for a connection that is opened and closed at once (`benchmarks/`, row
    "handshakes"). May be called more than once.
    """


def count_kept() -> int:
    """Return how many pieces are kept for the next greenlets."""
    return 0
