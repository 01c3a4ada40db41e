"""What mutmut makes of a module: its mutants, what each changes, and how one takes its original's place."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

__all__ = ["Mutant", "make", "put_in_place"]

_SEPARATOR = "ǁ"


class Mutant(NamedTuple):
    """One change.

    Attributes:
        name: by which mutmut calls it.
        original: the function of the module that it is a change of.
        function: the changed one.
        change: the module, and the lines that were there and are there now, all on one line.
    """

    name: str
    original: FunctionType
    function: FunctionType
    change: str


def make(module: str) -> list[Mutant]:
    """Let mutmut change `geventws.protocol.<module>` in every way that it knows.

    The working directory needs a pyproject.toml with mutmut's section.
    """
    from mutmut.mutation.file_mutation import mutate_file_contents

    real = importlib.import_module(f"geventws.protocol.{module}")
    assert real.__file__ is not None
    assert real.__file__.endswith(".py"), f"{real.__file__} is compiled"
    with open(real.__file__, encoding="utf-8") as file:
        mutated = mutate_file_contents(real.__file__, file.read())
    names: dict[str, Any] = {"__name__": real.__name__, "__package__": real.__package__}
    exec(compile(mutated.code, f"<{module}, mutated>", "exec"), names)
    lines = mutated.code.splitlines()
    spans = {
        name: lines[span.start - 1 : span.end] for name, span in mutated.line_span_by_function_name.items()
    }
    found = []
    for name in mutated.mutant_names:
        mangled = name.partition("__mutmut_")[0]
        original = _find(real, mangled)
        function = _find_generated(names, name)
        found.append(
            Mutant(
                f"{module}.{name}",
                original,
                function,
                f"{module}: {_difference(spans[f'{mangled}__mutmut_orig'], spans[name])}",
            )
        )
    return found


def _find(real: ModuleType, mangled: str) -> FunctionType:
    """The function of the module, or of a class of it."""
    if _SEPARATOR in mangled:
        _, class_name, name = mangled.split(_SEPARATOR)
        function = inspect.unwrap(vars(getattr(real, class_name))[name])
    else:
        function = inspect.unwrap(getattr(real, mangled.removeprefix("x_")))
    assert isinstance(function, FunctionType), f"{mangled} is a {type(function).__name__}"
    return function


def _find_generated(names: dict[str, Any], name: str) -> FunctionType:
    if _SEPARATOR in name:
        function = vars(names[name.split(_SEPARATOR)[1]])[name]
    else:
        function = names[name]
    assert isinstance(function, FunctionType)
    return function


def _difference(before: list[str], after: list[str]) -> str:
    """What of a function is another, without its first line, which has its name."""
    parts = []
    for line in difflib.ndiff(before, after):
        if line[0] in "-+":
            text = re.sub(r"x\S*__mutmut_\w+", "", line[2:]).strip()
            parts.append((line[0], text))
    # The line of the name differs always; where that is all of it that does, it is no part of the change.
    removed = [text for sign, text in parts if sign == "-"]
    added = [text for sign, text in parts if sign == "+"]
    return "  ".join(
        f"{sign} {text}"
        for sign, text in parts
        if not (text.startswith("def ") and text in removed and text in added)
    )


def put_in_place(original: FunctionType, function: FunctionType) -> None:
    """Have `original` do what `function` does, whoever has imported it under whatever name."""
    code: CodeType = function.__code__
    assert code.co_freevars == original.__code__.co_freevars
    original.__code__ = code
    original.__defaults__ = function.__defaults__
    original.__kwdefaults__ = function.__kwdefaults__
