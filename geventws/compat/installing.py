"""Putting our modules where `import geventwebsocket` finds them."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ..options import check_options

__all__ = ["install", "options_in_force"]

_NAME = "geventwebsocket"

#: The modules of gevent-websocket that there are here.
_MODULES = (
    "exceptions", "gunicorn", "handler", "logging", "protocols", "protocols.base", "resource", "server",
    "utils", "websocket",
)  # fmt: skip
#: Those that need a package which need not be there: imported when they are asked for.
_LATER = ("gunicorn.workers",)

_options: dict[str, Any] = {}


def install(**options: Any) -> None:
    """Make `import geventwebsocket` work, with geventws under it.

    It comes before the first import of `geventwebsocket` and of all that imports it: engineio,
    Flask-SocketIO, flask_sockets, bottle_websocket. Whether gevent-websocket itself is installed does not
    matter. A second call does nothing but set options.

    Args:
        options: see `Options`, for all that gets its WebSockets through these names and says nothing else.

    Raises:
        RuntimeError: if that was imported already; the message says what.
        TypeError, ValueError: as `Options`.
    """
    if options:
        # They must be right, and are.
        check_options("install()", options)
    found = sys.modules.get(_NAME)
    package = importlib.import_module(__package__)
    if found is not package:
        _check_nothing_was_imported()
        names = {_NAME: package}
        names |= {f"{_NAME}.{name}": importlib.import_module(f"{__package__}.{name}") for name in _MODULES}
        sys.meta_path.insert(0, _Finder())
        sys.modules.update(names)
    _options.update(options)


def options_in_force() -> dict[str, Any]:
    """Return the options that `install` was given."""
    return dict(_options)


def _check_nothing_was_imported() -> None:
    for name, module in list(sys.modules.items()):
        if name == _NAME or name.startswith(f"{_NAME}."):
            raise RuntimeError(
                f"gevent-websocket was imported already ({name}, from {getattr(module, '__file__', None)}): "
                "call geventws.compat.install() before the first import of geventwebsocket, and of whatever "
                "imports that"
            )
    engineio = sys.modules.get("engineio.async_drivers.gevent")
    if engineio is not None:
        raise RuntimeError(
            "engineio.async_drivers.gevent was imported already, and has found no geventwebsocket: "
            "call geventws.compat.install() before engineio, socketio or flask_socketio are imported"
        )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what is below `geventwebsocket`, so that nobody else does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent, _, name = fullname.partition(".")
        if parent != _NAME or not name:
            return None
        if name not in _LATER and name not in _MODULES:
            raise ModuleNotFoundError(
                f"no module named {fullname!r} (geventws.compat stands for geventwebsocket, without it)",
                name=fullname,
            )
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Put ours in the place of an empty module: Python takes what is in `sys.modules` behind this."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(f"{__package__}.{name.partition('.')[2]}")
