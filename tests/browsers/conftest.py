"""Tests with a browser, which the default run has not: tox -e browsers."""

from __future__ import annotations

# Files named on the command line are collected.
collect_ignore_glob = ["test_*.py"]
