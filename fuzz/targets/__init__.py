"""What is fuzzed: each target reads bytes, lets geventws and others read them, and compares.

A target has two questions. `check(data)` asks all: AssertionError is a finding. `quick(data)` asks the
build under test alone, in one piece and cut, and returns what kind of input that was: for a driver that
is fast and knows no coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Target", "names", "target"]


class Target(NamedTuple):
    """One target.

    Attributes:
        check: ask all that there are.
        quick: ask the build under test alone; returns something hashable.
        dictionary: bytes that mean something here.
        most: bytes of an input.
    """

    check: Callable[[bytes], Any]
    quick: Callable[[bytes], Any]
    dictionary: list[bytes]
    most: int = 2048


_MODULES = {
    "frames_server": "frames",
    "frames_client": "frames",
    "messages": "messages",
    "requests": "heads",
    "responses": "heads",
    "lists": "lists",
    "closes": "closes",
    "uris": "uris",
}


def names() -> list[str]:
    """All targets, in the order in which they are run."""
    return list(_MODULES)


def target(name: str) -> Target:
    """A target by its name."""
    import importlib

    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    found: Target = module.TARGETS[name]
    return found
