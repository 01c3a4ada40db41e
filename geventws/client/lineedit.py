"""A line editor for a terminal: bytes of the keyboard in, lines and what to draw out.

Knows no terminal: terminal.py reads and writes. Not `readline`, which would hold up the event loop, and
above whose line nobody else can write.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

__all__ = ["LineEditor", "display_width"]

#: Lines that are remembered.
_HISTORY = 500

#: Characters of a line; more are not taken.
_LONGEST = 64 * 1024

#: What terminals send for a key: ECMA-48 control sequences, and SS3 with one letter.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~]|[^\[O])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")

_KEYS = {
    "\x1b[A": "previous", "\x1bOA": "previous", "\x10": "previous",
    "\x1b[B": "next", "\x1bOB": "next", "\x0e": "next",
    "\x1b[C": "right", "\x1bOC": "right", "\x06": "right",
    "\x1b[D": "left", "\x1bOD": "left", "\x02": "left",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "\x1b[7~": "home", "\x01": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "\x1b[8~": "end", "\x05": "end",
    "\x1b[3~": "delete", "\x04": "delete",
    "\x7f": "backspace", "\x08": "backspace",
    "\x15": "kill_before", "\x0b": "kill_behind", "\x17": "kill_word",
    "\r": "enter", "\n": "enter",
}  # fmt: skip


def display_width(text: str) -> int:
    """Return the columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


class LineEditor:
    """One line that is being edited, and those before it.

    Attributes:
        text: the line.
        position: where the cursor stands in it.
        ended: the end of input was typed (Ctrl-D on an empty line).
    """

    def __init__(self, prompt: str = "> ") -> None:
        self.prompt = prompt
        self.text = ""
        self.position = 0
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._pending = ""
        self._history: list[str] = []
        #: Where in the history we are; its length for the line that is new.
        self._at = 0
        self._new = ""

    def feed(self, data: bytes) -> list[str]:
        """Take what was typed, and return the lines that were completed by it."""
        typed = self._pending + self._decoder.decode(data)
        self._pending = ""
        lines: list[str] = []
        position = 0
        while position < len(typed) and not self.ended:
            character = typed[position]
            if character == "\x1b":
                if _UNFINISHED.match(typed, position):
                    self._pending = typed[position:]
                    break
                found = _SEQUENCE.match(typed, position)
                # Of one that is malformed, the escape alone is dropped.
                key = found[0] if found else character
                position += len(key)
            else:
                key = character
                position += 1
            self._press(key, lines)
        return lines

    def _press(self, key: str, lines: list[str]) -> None:
        action = _KEYS.get(key)
        if key == "\x04" and not self.text:
            self.ended = True
        elif action == "enter":
            lines.append(self.text)
            self._remember()
        elif action in ("previous", "next"):
            self._go(-1 if action == "previous" else 1)
        elif action is not None:
            self._edit(action)
        elif (key.isprintable() or key == "\t") and len(self.text) < _LONGEST:
            self.text = self.text[: self.position] + key + self.text[self.position :]
            self.position += 1

    def _edit(self, action: str) -> None:
        before, behind = self.text[: self.position], self.text[self.position :]
        if action == "left":
            self.position = max(0, self.position - 1)
        elif action == "right":
            self.position = min(len(self.text), self.position + 1)
        elif action == "home":
            self.position = 0
        elif action == "end":
            self.position = len(self.text)
        elif action == "delete":
            self.text = before + behind[1:]
        else:
            if action == "backspace":
                before = before[:-1]
            elif action == "kill_before":
                before = ""
            elif action == "kill_word":
                before = before.rstrip()
                before = before[: max(before.rfind(" "), before.rfind("\t")) + 1]
            elif action == "kill_behind":
                behind = ""
            self.text = before + behind
            self.position = len(before)

    def _remember(self) -> None:
        if self.text and self._history[-1:] != [self.text]:
            self._history.append(self.text)
            del self._history[:-_HISTORY]
        self._at = len(self._history)
        self.text = self._new = ""
        self.position = 0

    def _go(self, step: int) -> None:
        """Go through the history."""
        if self._at == len(self._history):
            self._new = self.text
        self._at = min(max(self._at + step, 0), len(self._history))
        self.text = self._new if self._at == len(self._history) else self._history[self._at]
        self.position = len(self.text)

    def draw(self, columns: int) -> str:
        """Return what draws the line, in one row of so many columns, with the cursor where it is."""
        room = max(columns - len(self.prompt) - 1, 1)
        text = self.text.replace("\t", " ")
        start = end = self.position
        # As much before the cursor as has room, then as much behind it.
        width = 0
        while start > 0 and width + display_width(text[start - 1]) <= room:
            start -= 1
            width += display_width(text[start])
        column = len(self.prompt) + width
        while end < len(text) and width + display_width(text[end]) <= room:
            width += display_width(text[end])
            end += 1
        return f"\r{self.prompt}{text[start:end]}\x1b[K\r\x1b[{column}C"
