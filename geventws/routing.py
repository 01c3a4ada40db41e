"""Which handler serves a path: rules in Werkzeug's syntax, without Werkzeug.

A rule is a path with variables in angle brackets, `/chat/<room>` or `/page/<int(min=1):number>`. Rules
are kept as a tree with one level for each segment; a `path` variable takes all levels that are left.
The order of specificity is Werkzeug's: static text before variables, more static text before less,
numbers before text before `path`. Where Werkzeug goes by the order of registration the narrower
rule comes first, so that the order of registration never matters.

Each node of the tree is visited at most once for a path, and no text is matched by backtracking: time
grows linearly with the length of the path, whatever it holds.
"""

from __future__ import annotations

import inspect
import re
from bisect import insort
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from .converters import Converter, Ends, make_converter

__all__ = ["Router", "check_handler"]

Handler = Callable[..., Any]
_HandlerT = TypeVar("_HandlerT", bound=Handler)

_TOKEN = re.compile(
    r"""
    (?P<slash>/)
    | (?P<text>[^<>/]+)
    | <(?:(?P<converter>[a-zA-Z_][a-zA-Z0-9_]*)(?:\((?P<arguments>.*?)\))?:)?(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)>
    """,
    re.VERBOSE | re.DOTALL,
)


class Router:
    """Maps paths to handlers.

    ::

        router = Router({"/echo": echo})

        @router.route("/chat/<room>")
        def chat(ws, room): ...

        WebSocketServer(("", 8888), router).serve_forever()

    ============================ =================================================== ==============
    variable                     takes                                               handler gets
    ============================ =================================================== ==============
    `<name>`, `<string:name>`    one segment or a part of one                        `str`
    `<int:name>`                 ASCII digits                                        `int`
    `<float:name>`               digits, a point, digits                             `float`
    `<uuid:name>`                a UUID in hexadecimal, with its four hyphens        `uuid.UUID`
    `<any(a, b, "c d"):name>`    one of these                                        `str`
    `<path:name>`                anything that does not begin with a slash           `str`
    ============================ =================================================== ==============

    `string` takes `minlength`, `maxlength` or `length`; `int` and `float` take `min`, `max` and
    `signed=True`; `int` takes `fixed_digits` too. A value outside of them is no match, and the next rule
    is tried.

    A path matches as a whole, and its trailing slash counts: `/chat` and `/chat/` are two paths. There is
    no redirect from the one to the other, for WebSocket clients do not follow any; add both rules
    where both shall do. Rules are written as the decoded text: `/café`, not `/caf%C3%A9`.

    Args:
        rules: rules and their handlers, to begin with.
    """

    __slots__ = ("_root",)

    def __init__(self, rules: Mapping[str, Handler] | None = None) -> None:
        self._root = _Node()
        for rule, handler in (rules or {}).items():
            self.add(rule, handler)

    def add(self, rule: str, handler: Handler) -> None:
        """Let `handler` serve the paths that match `rule`.

        Args:
            rule: as described for the class.
            handler: called as `handler(ws, **values)` with the values of the rule's variables.

        Raises:
            ValueError: for a rule that is malformed, or matches exactly the paths of another one.
            TypeError: for a handler that cannot be called with the rule's variables, or would not run.
        """
        parts, names = _parse(rule)
        check_handler(handler, names, rule=rule)
        node = self._root
        for part in parts:
            node = node.follow(part)
        if node.route is not None:
            raise ValueError(
                f"rule {rule!r} is a duplicate of {node.route.rule!r}: both match the same paths"
            )
        node.route = _Route(rule, handler, names)

    def route(self, rule: str) -> Callable[[_HandlerT], _HandlerT]:
        """Return a decorator that adds a function under `rule`; for arguments and errors see `add`."""

        def decorate(handler: _HandlerT) -> _HandlerT:
            self.add(rule, handler)
            return handler

        return decorate

    def match(self, path: str) -> tuple[Handler, dict[str, Any]] | None:
        """Find the handler for a path.

        Args:
            path: percent-decoded, without the query.

        Returns:
            The handler and the keyword arguments for it, or None where no rule matches.
        """
        if not path.startswith("/"):
            return None
        found = _find(self._root, path, path.split("/"), 1, 1, ())
        if found is None:
            return None
        route, values = found
        return route.handler, dict(zip(route.names, values, strict=True))

    def __repr__(self) -> str:
        return f"Router({{{', '.join(f'{rule!r}: ...' for rule in sorted(self._root.rules()))}}})"


class _Route(NamedTuple):
    """What stands at the end of a rule."""

    rule: str
    handler: Handler
    names: tuple[str, ...]


class _Part:
    """One segment of a rule, or all from the segment with a `path` variable to the end.

    Attributes:
        text: the segment, where it has no variables.
        pieces: its texts and converters otherwise, in their order.
        final: whether it takes all segments that are left.
        weight: what comes first is tried first.
    """

    __slots__ = ("_converters", "_head", "_tail", "final", "pieces", "text", "weight")

    def __init__(self, pieces: list[str | Converter], lengths: list[int], final: bool) -> None:
        converters = [piece for piece in pieces if isinstance(piece, Converter)]
        self.final = final
        self.text = None if converters else "".join(map(str, pieces))
        # The order of Werkzeug's `Weighting`; behind it what makes it total.
        self.weight = (
            -len(lengths),
            [-length for length in lengths],
            -len(converters),
            [converter.weight for converter in converters],
            [converter.rank for converter in converters],
            [(0, piece) if isinstance(piece, str) else (1, repr(piece.rank)) for piece in pieces],
        )
        # Text at the ends is compared first: most segments have one variable, which then takes the rest.
        head = pieces[0] if converters else ""
        tail = pieces[-1] if converters else ""
        self._head = head if isinstance(head, str) else ""
        self._tail = tail if isinstance(tail, str) else ""
        self.pieces = tuple(pieces[bool(self._head) : len(pieces) - bool(self._tail)])

    def __lt__(self, other: _Part) -> bool:
        return self.weight < other.weight

    def match(self, text: str) -> tuple[Any, ...] | None:
        """Return the values of the variables, or None if `text` does not match as a whole."""
        head, tail = len(self._head), len(text) - len(self._tail)
        if tail < head or not text.startswith(self._head) or not text.endswith(self._tail):
            return None
        text = text[head:tail]
        if len(self.pieces) == 1:
            texts: list[str] | None = [text]
        else:
            texts = _divide(self.pieces, text)
        if texts is None:
            return None
        values = []
        converters = (piece for piece in self.pieces if isinstance(piece, Converter))
        for converter, value in zip(converters, texts, strict=True):
            try:
                values.append(converter.convert(value))
            except ValueError:
                return None
        return tuple(values)


class _Node:
    """What may follow after some segments."""

    __slots__ = ("dynamic", "route", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.dynamic: list[tuple[_Part, _Node]] = []
        self.route: _Route | None = None

    def follow(self, part: _Part) -> _Node:
        """Return the node behind `part`, made where it is missing."""
        if part.text is not None:
            return self.static.setdefault(part.text, _Node())
        for known, node in self.dynamic:
            if known.weight == part.weight:
                return node
        node = _Node()
        # A new list: another thread may be going through the old one.
        dynamic = self.dynamic.copy()
        insort(dynamic, (part, node), key=lambda item: item[0])
        self.dynamic = dynamic
        return node

    def rules(self) -> list[str]:
        """List the rules from here on."""
        found = [] if self.route is None else [self.route.rule]
        for node in [*self.static.values(), *(node for _, node in self.dynamic)]:
            found += node.rules()
        return found


def _find(
    node: _Node, path: str, segments: list[str], index: int, offset: int, values: tuple[Any, ...]
) -> tuple[_Route, tuple[Any, ...]] | None:
    """Find the first rule that matches `segments[index:]`, which begin at `path[offset]`."""
    if index == len(segments):
        return None if node.route is None else (node.route, values)
    segment = segments[index]
    behind = offset + len(segment) + 1
    static = node.static.get(segment)
    if static is not None:
        found = _find(static, path, segments, index + 1, behind, values)
        if found is not None:
            return found
    for part, follower in node.dynamic:
        more = part.match(path[offset:] if part.final else segment)
        if more is not None:
            following = len(segments) if part.final else index + 1
            found = _find(follower, path, segments, following, behind, values + more)
            if found is not None:
                return found
    return None


def _divide(pieces: tuple[str | Converter, ...], text: str) -> list[str] | None:
    """Divide `text` among the converters of `pieces`, or return None if it cannot be.

    The result is that of a regular expression: an earlier variable takes as much as it can, a `path` as
    little. What that finds by trying is computed here, from the end: for each piece and position, the
    first position from there on where that piece and all behind it match the rest of the text.
    """
    size = len(text)
    none = size + 1
    following = [size] * none + [none]
    plans: list[tuple[Converter | None, tuple[str, ...], Ends, list[int]]] = []
    for piece in reversed(pieces):
        converter = piece if isinstance(piece, Converter) else None
        items = piece.items if isinstance(piece, Converter) else (piece,)
        ends: Ends = ([], [])
        matches = bytearray(none + 1)
        if items:
            for item in items:
                start = text.find(item)
                while start >= 0:
                    if following[start + len(item)] == start + len(item):
                        matches[start] = 1
                    start = text.find(item, start + 1)
        else:
            assert converter is not None
            ends = converter.ends(text)
            for position, (first, last) in enumerate(zip(*ends, strict=True)):
                if following[first] <= last:
                    matches[position] = 1
        plans.append((converter, items, ends, following))
        nearest = none
        following = [none] * (none + 1)
        for position in range(size, -1, -1):
            if matches[position]:
                nearest = position
            following[position] = nearest
    if following[0] != 0:
        return None
    # Now the way from the beginning is known to exist.
    texts = []
    position = 0
    for converter, items, (firsts, lasts), following in reversed(plans):
        if items:
            fitting = (position + len(item) for item in items if text.startswith(item, position))
            end = next(end for end in fitting if following[end] == end)
        else:
            assert converter is not None
            end = following[firsts[position]] if converter.lazy else lasts[position]
            while following[end] != end:
                end -= 1
        if converter is not None:
            texts.append(text[position:end])
        position = end
    return texts


def _parse(rule: str) -> tuple[list[_Part], tuple[str, ...]]:
    """Return the parts of a rule and the names of its variables."""
    if not isinstance(rule, str):
        raise TypeError(f"a rule is a string such as '/chat/<room>', not {rule!r}")
    if not rule.startswith("/"):
        raise ValueError(f"rule {rule!r} does not begin with a slash")
    parts: list[_Part] = []
    names: list[str] = []
    pieces: list[str | Converter] = []
    lengths: list[int] = []
    final = False
    position = 1
    while position < len(rule):
        token = _TOKEN.match(rule, position)
        if token is None:
            raise ValueError(f"rule {rule!r} is malformed at {rule[position:]!r}: a variable is <name> or "
                             "<converter:name> or <converter(arguments):name>")  # fmt: skip
        position = token.end()
        if token["slash"]:
            if rule[token.start() - 1] == "/":
                raise ValueError(f"rule {rule!r} has an empty segment")
            if final:
                _append_text(pieces, "/")
            else:
                parts.append(_Part(pieces, lengths, final))
                pieces, lengths = [], []
        elif token["text"]:
            lengths.append(len(token["text"]))
            _append_text(pieces, token["text"])
        else:
            if token["name"] in names:
                raise ValueError(f"rule {rule!r} has two variables named {token['name']!r}")
            names.append(token["name"])
            try:
                converter = make_converter(token["converter"] or "string", token["arguments"] or "")
            except ValueError as error:
                raise ValueError(f"rule {rule!r}, variable {token['name']!r}: {error}") from None
            pieces.append(converter)
            final = final or converter.takes_slashes
    parts.append(_Part(pieces, lengths, final))
    return parts, tuple(names)


def _append_text(pieces: list[str | Converter], text: str) -> None:
    """Append text to the text before it, if that is one."""
    if pieces and isinstance(pieces[-1], str):
        text = pieces.pop() + text  # type: ignore[operator]
    pieces.append(text)


def check_handler(handler: Any, names: tuple[str, ...] = (), *, rule: str | None = None) -> None:
    """Raise TypeError now rather than at each connection if a handler cannot work.

    Args:
        handler: what is to be called as `handler(ws, **values)`.
        names: those of the values.
        rule: the rule that it serves, for the message.
    """
    where = "" if rule is None else f"rule {rule!r}: "
    if isinstance(handler, type) and issubclass(handler, Router):
        raise TypeError(
            f"{where}the handler is the class {handler.__name__}; make one: {handler.__name__}(...)"
        )
    if not callable(handler):
        wanted = (
            "handler takes a function or a Router" if rule is None else f"{where}the handler must be callable"
        )
        raise TypeError(f"{wanted}, not {handler!r}")
    # An object may be called by its class's method; a class has that of its instances, which is not called.
    call = None if isinstance(handler, type) else getattr(type(handler), "__call__", None)  # noqa: B004
    for function in (handler, call):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{where}the handler {handler!r} is asynchronous, which nothing would run: "
                            "use def instead of async def; receive() and send() need no await")  # fmt: skip
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{where}the handler {handler!r} is a generator function, and nothing runs it: "
                            "use ws.send() instead of yield")  # fmt: skip
    try:
        # Not that of a function which it wraps: what is called may add or take away arguments.
        signature = inspect.signature(handler, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # written in C, without a signature
    try:
        signature.bind(None, **dict.fromkeys(names))
    except TypeError as error:
        wanted = ", ".join(["ws", *(f"{name}=..." for name in names)])
        raise TypeError(f"{where}{handler!r} cannot be called with ({wanted}): {error}") from None
