"""Frameworks that the default run has not installed: tox -e frameworks."""

from __future__ import annotations

# Files named on the command line are collected.
collect_ignore_glob = ["test_*.py"]
