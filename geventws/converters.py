"""The variables of a rule: which texts each kind of them takes, and what value comes of it.

Part of routing.py. A converter is asked in two ways: `convert` for a text that is a variable's as a
whole, and `ends` (or `items`) where several variables share one text, to divide it among them.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

__all__ = ["Converter", "Ends", "make_converter"]

#: For each position in a text, and the one behind it: the first and the last end of what may begin there;
#: all ends between them are possible too. Where the last is below the first, nothing may.
Ends = tuple[list[int], list[int]]

_Number = TypeVar("_Number", int, float)

_DIGITS = re.compile("[0-9]+")
_UUID = re.compile("[A-Fa-f0-9]{8}-(?:[A-Fa-f0-9]{4}-){3}[A-Fa-f0-9]{12}")
_INTEGER = re.compile("(-?)[0-9]+")
_FLOATS = re.compile(r"(?<![0-9])([0-9]+)(?=\.([0-9]+))")
_FLOAT = re.compile(r"(-?)[0-9]+\.[0-9]+")


class Converter:
    """What one variable takes.

    Attributes:
        weight: Werkzeug's; the lower one is tried first.
        rank: for those of the same weight, the narrower first; equal only for converters that are.
        takes_slashes: whether its text may go over several segments.
        lazy: whether it takes as little as it can, instead of as much.
        items: the only texts that it takes, the best first; () where `ends` tells.
    """

    __slots__ = ("rank",)

    weight: ClassVar[int] = 100
    takes_slashes: ClassVar[bool] = False
    lazy: ClassVar[bool] = False
    items: tuple[str, ...] = ()
    rank: tuple[Any, ...]

    def convert(self, text: str) -> Any:
        """Return the value of a text, or raise ValueError if it is none for this variable."""
        raise NotImplementedError

    def ends(self, text: str) -> Ends:
        """Tell where in `text` what begins at each position may end; at most one behind the text."""
        raise NotImplementedError


class StringConverter(Converter):
    """Characters of one segment, at least `minlength` (1), at most `maxlength`, or exactly `length`."""

    __slots__ = ("_maximum", "_minimum")

    def __init__(self, minlength: int = 1, maxlength: int | None = None, length: int | None = None) -> None:
        for name, value in (("minlength", minlength), ("maxlength", maxlength), ("length", length)):
            _check(name, value, int, value is None and name != "minlength")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if length is not None:
            if minlength != 1 or maxlength is not None:
                raise ValueError("length goes without minlength and maxlength")
            minlength = maxlength = length
        if maxlength is not None and minlength > maxlength:
            raise ValueError(f"minlength {minlength} is above maxlength {maxlength}")
        self._minimum = minlength
        self._maximum = maxlength
        self.rank = (2, math.inf if maxlength is None else maxlength - minlength, -minlength)

    def convert(self, text: str) -> str:
        length = len(text)
        if length < self._minimum or (self._maximum is not None and length > self._maximum) or "/" in text:
            raise ValueError
        return text

    def ends(self, text: str) -> Ends:
        none = len(text) + 1
        minimum = min(self._minimum, none)
        firsts = [*range(minimum, none), *[none] * minimum]
        lasts: list[int] = []
        for segment in text.split("/"):
            length = len(segment) + 1
            lasts += [len(lasts) + length - 1] * length
        if self._maximum is not None:
            lasts = list(map(min, lasts, range(self._maximum, self._maximum + none)))
        return firsts, lasts


class PathConverter(Converter):
    """Any characters, also of several segments; the first is no slash."""

    __slots__ = ()

    weight = 200
    takes_slashes = True
    lazy = True

    def __init__(self) -> None:
        self.rank = (0,)

    def convert(self, text: str) -> str:
        if not text or text[0] == "/":
            raise ValueError
        return text

    def ends(self, text: str) -> Ends:
        none = len(text) + 1
        firsts = [none if character == "/" else end for end, character in enumerate(text, 1)]
        return [*firsts, none], [len(text)] * none


class AnyConverter(Converter):
    """One of several texts; where one is the beginning of another, the longer is preferred."""

    __slots__ = ("items",)

    def __init__(self, *items: str) -> None:
        if not items:
            raise ValueError("any() needs the texts that it takes")
        for item in items:
            if not item or "/" in item:
                raise ValueError(f"any() takes parts of one segment, not {item!r}")
        self.items = tuple(sorted(set(items), key=lambda item: (-len(item), item)))
        self.rank = (0, len(self.items), self.items)

    def convert(self, text: str) -> str:
        if text not in self.items:
            raise ValueError
        return text


class UUIDConverter(Converter):
    """A UUID (RFC 9562 section 4)."""

    __slots__ = ()

    def __init__(self) -> None:
        self.rank = (1,)

    def convert(self, text: str) -> uuid.UUID:
        if not _UUID.fullmatch(text):
            raise ValueError
        return uuid.UUID(text)

    def ends(self, text: str) -> Ends:
        none = len(text) + 1
        firsts = [none] * none
        lasts = [0] * none
        for start in range(none - 36):
            if _UUID.match(text, start):
                firsts[start] = lasts[start] = start + 36
        return firsts, lasts


class IntegerConverter(Converter):
    """ASCII digits, from `min` to `max`; if `signed`, a minus before them; if `fixed_digits`, that many."""

    __slots__ = ("_fixed", "_maximum", "_minimum", "_signed")

    weight = 50

    def __init__(
        self, fixed_digits: int = 0, min_: int | None = None, max_: int | None = None, signed: bool = False
    ) -> None:
        _check("fixed_digits", fixed_digits, int)
        if fixed_digits < 0:
            raise ValueError(f"fixed_digits must be at least 1, not {fixed_digits}")
        _check_limits(min_, max_, signed, int)
        self._fixed = fixed_digits
        self._minimum, self._maximum, self._signed = min_, max_, signed
        self.rank = (0, *_rank_limits(min_, max_, signed, fixed_digits))

    def convert(self, text: str) -> int:
        found = _INTEGER.fullmatch(text)
        if found is None or (found[1] and not self._signed) or (self._fixed and len(text) != self._fixed):
            raise ValueError
        # Python refuses thousands of digits with a ValueError: their conversion takes quadratic time.
        return _within(int(text), self._minimum, self._maximum)

    def ends(self, text: str) -> Ends:
        none = len(text) + 1
        firsts = [none] * none
        lasts = [0] * none
        for run in _DIGITS.finditer(text):
            start, end = run.span()
            firsts[start:end] = range(start + 1, end + 1)
            lasts[start:end] = [end] * (end - start)
            if self._signed and text[start - 1 : start] == "-":
                firsts[start - 1], lasts[start - 1] = start + 1, end
        if self._fixed:
            for start in range(none):
                end = start + self._fixed
                if firsts[start] <= end <= lasts[start]:
                    firsts[start] = lasts[start] = end
                else:
                    firsts[start], lasts[start] = none, 0
        return firsts, lasts


class FloatConverter(Converter):
    """ASCII digits, a point, digits, from `min` to `max`; a minus before them if `signed`."""

    __slots__ = ("_maximum", "_minimum", "_signed")

    weight = 50

    def __init__(self, min_: float | None = None, max_: float | None = None, signed: bool = False) -> None:
        _check_limits(min_, max_, signed, float)
        self._minimum, self._maximum, self._signed = min_, max_, signed
        self.rank = (1, *_rank_limits(min_, max_, signed, 0))

    def convert(self, text: str) -> float:
        found = _FLOAT.fullmatch(text)
        if found is None or (found[1] and not self._signed):
            raise ValueError
        value = float(text)
        if math.isinf(value):
            raise ValueError
        return _within(value, self._minimum, self._maximum)

    def ends(self, text: str) -> Ends:
        none = len(text) + 1
        firsts = [none] * none
        lasts = [0] * none
        for number in _FLOATS.finditer(text):
            # Its digits behind the point may be the ones before the next point.
            start, point = number.span(1)
            end = number.end(2)
            firsts[start:point] = [point + 2] * (point - start)
            lasts[start:point] = [end] * (point - start)
            if self._signed and text[start - 1 : start] == "-":
                firsts[start - 1], lasts[start - 1] = point + 2, end
        return firsts, lasts


def _within(value: _Number, minimum: float | None, maximum: float | None) -> _Number:
    """Return `value`, or raise ValueError if it is outside of the limits."""
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise ValueError
    return value


def _check(name: str, value: Any, kind: type, optional: bool = False) -> None:
    """Raise ValueError for an argument of another type."""
    if value is None and optional:
        return
    if kind is float and type(value) is int:
        return
    if type(value) is not kind:
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        raise ValueError(f"{name} takes {words[kind]}, not {value!r}")


def _check_limits(minimum: Any, maximum: Any, signed: Any, kind: type) -> None:
    """Check the arguments that integers and floats have in common."""
    _check("min", minimum, kind, True)
    _check("max", maximum, kind, True)
    _check("signed", signed, bool)
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ValueError(f"min {minimum} is above max {maximum}")


def _rank_limits(minimum: Any, maximum: Any, signed: bool, fixed_digits: int) -> tuple[Any, ...]:
    """Rank numbers by how narrow their limits are."""
    limits = (minimum is None) + (maximum is None)
    return (
        fixed_digits == 0,
        limits,
        signed,
        fixed_digits,
        math.inf if minimum is None else -minimum,
        math.inf if maximum is None else maximum,
    )


_CONVERTERS: dict[str, Callable[..., Converter]] = {
    "any": AnyConverter,
    "default": StringConverter,
    "float": FloatConverter,
    "int": IntegerConverter,
    "path": PathConverter,
    "string": StringConverter,
    "uuid": UUIDConverter,
}

_ARGUMENT = re.compile(
    r"""\s*(?:(?P<name>[a-zA-Z_]*[a-zA-Z])\s*=\s*)?(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[-\w.]+))\s*(?:,|\Z)""",
    re.ASCII,
)


def make_converter(name: str, arguments: str) -> Converter:
    """Make the converter that a rule names.

    Args:
        name: such as "int".
        arguments: what stands in parentheses behind it, such as "min=1, max=9", or "".

    Raises:
        ValueError: for an unknown name, or arguments that it does not take.
    """
    maker = _CONVERTERS.get(name)
    if maker is None:
        raise ValueError(f"there is no converter {name!r}, only {', '.join(sorted(_CONVERTERS))}")
    values: list[Any] = []
    named: dict[str, Any] = {}
    position = 0
    while position < len(arguments.rstrip()):
        found = _ARGUMENT.match(arguments, position)
        if found is None:
            raise ValueError(f"arguments are malformed at {arguments[position:]!r}")
        position = found.end()
        value: Any = found["word"]
        if value is None:
            value = found["double"] if found["double"] is not None else found["single"]
        elif maker is not AnyConverter:
            value = _constant(value)
        parameter = found["name"]
        if parameter is None:
            if named:
                raise ValueError(f"{value!r} stands behind a named argument")
            values.append(value)
            continue
        if parameter in ("min", "max"):
            parameter += "_"
        if parameter in named:
            raise ValueError(f"{found['name']} is given twice")
        named[parameter] = value
    try:
        return maker(*values, **named)
    except TypeError:
        raise ValueError(f"{name} does not take the arguments ({arguments})") from None


def _constant(word: str) -> Any:
    """Return the value of an argument that is not quoted: a constant, a number or the word itself."""
    if word in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[word]
    if re.fullmatch("-?[0-9]+", word):
        return int(word)
    if re.fullmatch(r"-?[0-9]+\.[0-9]+", word):
        return float(word)
    return word
