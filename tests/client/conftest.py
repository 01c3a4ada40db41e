"""What the tests of the client share."""

from __future__ import annotations

import importlib.util
import os

import pytest

# Nobody is made to install it.
collect_ignore = [] if importlib.util.find_spec("locust") else ["test_locust.py"]


@pytest.fixture(autouse=True)
def no_proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no proxy, whatever that of the test run does."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
