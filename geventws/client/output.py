"""What `geventws connect` writes: a line for each message, which a terminal shows and does not obey.

Nothing here holds up the event loop, however long nobody reads.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from typing import TYPE_CHECKING, TextIO

from gevent.lock import BoundedSemaphore
from gevent.socket import wait_write

if TYPE_CHECKING:
    from .lineedit import LineEditor

__all__ = ["Output", "TerminalError", "columns", "escape"]

#: Bytes of a binary message that are shown.
_SHOWN = 256

_COLORS = {"received": "\x1b[36m", "note": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN = "\x1b[0m"


class TerminalError(Exception):
    """What was asked for cannot be done; the text is for standard error."""


def escape(text: str) -> str:
    """Return a text that a terminal shows and does not obey: on one line, without control characters.

    What changes the direction of writing, or is not seen at all, is escaped too.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character == "\t"
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


class Output:
    """Writes messages and notes, one to a line.

    Attributes:
        editor: the line that is being edited below them, or None.
    """

    def __init__(self, stream: TextIO, options: argparse.Namespace) -> None:
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        #: Who writes: what is long goes out in pieces.
        self._turn = BoundedSemaphore()
        self._raw = options.raw
        self._timestamps = options.timestamps
        self._marked = stream.isatty()
        self._colored = options.color == "always" or (
            options.color == "auto" and self._marked and "NO_COLOR" not in os.environ
        )
        self.editor: LineEditor | None = None

    def message(self, message: str | bytes) -> None:
        """Write a message that came."""
        if self._raw and self.editor is None:
            data = message.encode() if isinstance(message, str) else message
            self._write(data + b"\n")
            return
        if isinstance(message, str):
            text = message if self._raw else escape(message)
        else:
            shown = message[:_SHOWN].hex(" ") + (" ..." if len(message) > _SHOWN else "")
            text = f"({len(message)} bytes) {shown}"
        self._line("received", f"< {text}" if self._marked else text)

    def note(self, text: str, kind: str = "note") -> None:
        """Write a remark of ours."""
        self._line(kind, escape(text))

    def _line(self, kind: str, text: str) -> None:
        if self._timestamps:
            now = time.time()
            text = f"[{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03}] {text}"
        if self._colored:
            text = f"{_COLORS[kind]}{text}{_PLAIN}"
        if self.editor is not None:
            self.write(f"\r\x1b[K{text}\n{self.editor.draw(columns())}")
        else:
            self.write(f"{text}\n")

    def write(self, text: str) -> None:
        """Write at once; what the stream's encoding lacks is escaped.

        Raises:
            BrokenPipeError: if nobody reads any more.
            TerminalError: if it cannot be written.
        """
        self._write(text.encode(self._encoding, "backslashreplace"))

    def _write(self, data: bytes) -> None:
        descriptor = self._descriptor
        with self._turn, memoryview(data) as rest:
            position = 0
            while position < len(data):
                # A pipe that is full, a terminal that was stopped: this greenlet waits, but no Pong and no
                # signal does. POSIX: where a pipe has room, it has as much as this.
                if not select.select((), (descriptor,), (), 0)[1]:
                    wait_write(descriptor)
                try:
                    position += os.write(descriptor, rest[position : position + select.PIPE_BUF])
                except BlockingIOError:
                    wait_write(descriptor)
                except BrokenPipeError:
                    raise
                except OSError as error:
                    raise TerminalError(f"cannot write to standard output: {error.strerror}") from error


def columns() -> int:
    """Return the width of the terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
