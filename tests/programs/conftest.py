"""Programs that were written for other packages, run with one line more: tox -e programs."""

from __future__ import annotations

# They need the packages in requirements.txt; files named on the command line are collected.
collect_ignore_glob = ["test_*.py", "*_app.py", "socketio_*.py"]
