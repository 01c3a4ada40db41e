"""`geventwebsocket.utils`: the version that programs ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["VERSION", "get_version"]

#: The release of gevent-websocket whose interface this is.
VERSION = (0, 10, 1, "final", 0)


def get_version(version: Sequence[Any] | None = None) -> str:
    """Return a version as a string: "0.10.1" for that of gevent-websocket whose interface this is.

    Args:
        version: five parts, as `VERSION` has them.
    """
    major, minor, micro, stage, number = VERSION if version is None else version
    text = f"{major}.{minor}" + (f".{micro}" if micro else "")
    return text if stage == "final" else f"{text}{ {'alpha': 'a', 'beta': 'b'}.get(stage, stage) }{number}"
