"""client/lineedit.py: keys in, lines and drawing out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventws.client.lineedit import LineEditor, display_width

LEFT, RIGHT, UP, DOWN = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B"


def typed(*keys: bytes) -> LineEditor:
    editor = LineEditor()
    for key in keys:
        assert editor.feed(key) == []
    return editor


class TestEditing:
    @pytest.mark.parametrize(
        ("keys", "text", "position"),
        [
            ([b"abc"], "abc", 3),
            ([b"ac", LEFT, b"b"], "abc", 2),
            ([b"ac", b"\x1bOD", b"b", b"\x1bOC", b"d"], "abcd", 4),
            ([b"b", b"\x1b[H", b"a", b"\x1b[F", b"c"], "abc", 3),
            ([b"b", b"\x1b[1~", b"a", b"\x1b[4~", b"c"], "abc", 3),
            ([b"b", b"\x01", b"a", b"\x05", b"c"], "abc", 3),
            ([b"abx\x7f", b"c"], "abc", 3),
            ([b"abx", LEFT, b"\x1b[3~"], "ab", 2),
            ([b"abx", LEFT, b"\x04"], "ab", 2),
            ([b"\x7f\x08", LEFT, b"a", RIGHT, RIGHT], "a", 1),
            ([b"abc", LEFT, b"\x15"], "c", 0),
            ([b"abc", LEFT, b"\x0b"], "ab", 2),
            ([b"one two three ", b"\x17"], "one two ", 8),
            ([b"one", b"\x17", b"\x17"], "", 0),
            (["größe".encode()], "größe", 5),
            ([b"\xc3", b"\xb6"], "ö", 1),
            ([b"a\xffb"], "ab", 2),
            ([b"\x1b", b"[", b"D", b"a"], "a", 1),
            ([b"a\x1b[1;5Db"], "ab", 2),
            ([b"a\x1bxb"], "ab", 2),
            ([b"a\x07\x00b"], "ab", 2),
            ([b"a\tb"], "a\tb", 3),
            (["\u202ea".encode()], "a", 1),
        ],
    )
    def test_keys(self, keys: list[bytes], text: str, position: int) -> None:
        editor = typed(*keys)
        assert (editor.text, editor.position) == (text, position)

    def test_lines(self) -> None:
        editor = LineEditor()
        assert editor.feed(b"one\rtwo\nthr") == ["one", "two"]
        assert editor.feed(b"ee\r\r") == ["three", ""]
        assert editor.text == ""

    def test_history(self) -> None:
        editor = LineEditor()
        editor.feed(b"one\rtwo\rtwo\r\rnew")
        assert [self.after(editor, key) for key in (UP, UP, UP, DOWN, DOWN, DOWN)] == [
            "two", "one", "one", "two", "new", "new",
        ]  # fmt: skip
        assert editor.feed(UP + b"!\r") == ["two!"]
        assert self.after(editor, b"\x1bOA") == "two!"
        assert self.after(editor, b"\x10") == "two"

    def after(self, editor: LineEditor, key: bytes) -> str:
        editor.feed(key)
        return editor.text

    def test_history_is_limited(self) -> None:
        editor = LineEditor()
        for number in range(1000):
            editor.feed(b"%d\r" % number)
        editor.feed(UP * 2000)
        assert editor.text == "500"

    def test_line_is_limited(self) -> None:
        assert len(typed(b"x" * 100_000).text) == 64 * 1024

    def test_end(self) -> None:
        editor = typed(b"a")
        assert editor.feed(b"\x04") == []
        assert not editor.ended
        editor.feed(b"\x7f\x04more")
        assert editor.ended
        assert editor.text == ""

    @given(st.lists(st.binary(max_size=20)), st.integers(1, 100))
    def test_anything_can_be_typed(self, pieces: list[bytes], columns: int) -> None:
        whole, cut = LineEditor(), LineEditor()
        data = b"".join(pieces)
        assert whole.feed(data) == [line for piece in pieces for line in cut.feed(piece)]
        assert (whole.text, whole.position, whole.ended) == (cut.text, cut.position, cut.ended)
        assert 0 <= whole.position <= len(whole.text)
        drawn = whole.draw(columns)
        shown = drawn.partition("\x1b[K")[0]
        assert shown[:3] == "\r> "
        assert shown[1:].isprintable()


class TestDrawing:
    @pytest.mark.parametrize(
        ("keys", "columns", "drawn"),
        [
            ([b"abc"], 20, "\r> abc\x1b[K\r\x1b[5C"),
            ([b"abc", LEFT, LEFT], 20, "\r> abc\x1b[K\r\x1b[3C"),
            ([b"abcdefgh"], 8, "\r> defgh\x1b[K\r\x1b[7C"),
            ([b"abcdefgh", b"\x01"], 8, "\r> abcde\x1b[K\r\x1b[2C"),
            ([b"a\tb"], 20, "\r> a b\x1b[K\r\x1b[5C"),
            (["日本".encode()], 20, "\r> 日本\x1b[K\r\x1b[6C"),
            (["日本語".encode()], 8, "\r> 本語\x1b[K\r\x1b[6C"),
            ([b""], 1, "\r> \x1b[K\r\x1b[2C"),
        ],
    )
    def test_drawing(self, keys: list[bytes], columns: int, drawn: str) -> None:
        assert typed(*keys).draw(columns) == drawn

    @pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)])
    def test_width(self, text: str, width: int) -> None:
        assert display_width(text) == width
