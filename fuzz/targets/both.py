"""Both builds of the protocol, side by side: the one that is installed, and a copy from source."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from builds import pure_package

import geventws

__all__ = ["BUILDS", "IS_COMPILED", "PURE", "UNDER_TEST", "pieces_of", "steady_keys", "told"]

_MODULES = (
    "closing",
    "connection",
    "deflate",
    "handshake",
    "headers",
    "heads",
    "http",
    "uri",
    "frames",
    "keys",
    "messages",
    "block",
    "masking",
    "contexts",
)


def _load(package: str) -> Any:
    modules = {name: importlib.import_module(f"{package}.protocol.{name}") for name in _MODULES}
    return SimpleNamespace(
        **modules,
        exceptions=importlib.import_module(f"{package}.exceptions"),
        options=importlib.import_module(f"{package}.options"),
    )


#: Held for as long as the process lives: code of ours imports while it runs.
_held = pure_package("geventws_fuzzed")
atexit.register(_held.__exit__, None, None, None)

IS_COMPILED = geventws.IMPLEMENTATION == "compiled"
PURE: Any = _load(_held.__enter__())
UNDER_TEST: Any = _load("geventws")
BUILDS = (UNDER_TEST, PURE)


@contextlib.contextmanager
def steady_keys() -> Iterator[None]:
    """Have masking keys the same each time in both, so that what a client writes can be compared."""
    _drop_keys()
    try:
        # The source of keys and not the function, which compiled code does not look up.
        with mock.patch.object(os, "urandom", lambda size: (_KEY * (size // 4 + 1))[:size]):
            yield
    finally:
        _drop_keys()


def _drop_keys() -> None:
    for build in BUILDS:
        build.keys.drop_keys()


_KEY = b"\x9e\x37\x79\xb1"

_SIZES: tuple[tuple[int, ...], ...] = ((1,), (1, 2, 3, 7, 20), (2, 125, 9), (64, 4096))


def pieces_of(data: bytes, how: int) -> list[bytes]:
    """Cut data in one of four ways."""
    sizes = _SIZES[how & 3]
    pieces = []
    at = turn = 0
    # No more than some hundred pieces: it is the places that matter.
    least = len(data) // 200
    while at < len(data):
        size = max(least, sizes[turn % len(sizes)])
        pieces.append(data[at : at + size])
        at += size
        turn += 1
    return pieces


def told(error: BaseException) -> tuple[Any, ...]:
    """What of an error does not depend on which build its class is from."""
    return (
        type(error).__name__,
        str(error),
        getattr(error, "kind", None),
        getattr(error, "status", None),
        getattr(error, "name", None),
        getattr(error, "value", None),
    )
