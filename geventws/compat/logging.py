"""`geventwebsocket.logging`: the logger that servers have here."""

from __future__ import annotations

import logging

__all__ = ["create_logger"]


class _DebugHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """The handler that `create_logger` adds, and knows again."""


def create_logger(name: str, debug: bool = False, format: str | None = None) -> logging.Logger:  # noqa: A002
    """Return the logger of this name.

    Args:
        name: its name.
        debug: write all that is logged to standard error.
        format: how to write it, as for `logging.Formatter`.
    """
    logger = logging.getLogger(name)
    for handler in logger.handlers[:]:
        if isinstance(handler, _DebugHandler):
            logger.removeHandler(handler)
            handler.close()
    if debug:
        handler = _DebugHandler()
        handler.setFormatter(logging.Formatter(format))
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.DEBUG)
    return logger
