"""What can be seen of a module is the same whether it is compiled: names, parameters, words.

Known differences, which are Cython's: special methods (`__init__` too) tell no parameters and no words;
attributes that the core alone sets can be read but not set; private ones cannot be seen.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest
from builds import compiled_modules, is_compiled

MODULES = compiled_modules()
#: Written twice, .py and .pyx: the words stand in the Python file, for that is the one people read.
TWINS = ["protocol.block", "protocol.keys", "protocol.masking", "stacks", "wire"]
SAME_SOURCE = [module for module in MODULES if module not in TWINS]
#: Cython gives a class these of its own.
MACHINERY = {"__pyx_vtable__", "__pyx_capi__", "__setstate_cython__", "__reduce_cython__", "__test__"}


def both(pure_name: str, module: str) -> tuple[ModuleType, ModuleType]:
    """A module of both builds."""
    compiled = importlib.import_module(f"geventws.{module}")
    pure = importlib.import_module(f"{pure_name}.{module}")
    return compiled, pure


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; annotations are for people and mypy."""
    return [
        (each.name, each.kind, repr(each.default)) for each in inspect.signature(function).parameters.values()
    ]


def public_classes(module: ModuleType) -> dict[str, type]:
    """Classes that were made in this module and are exported."""
    return {
        name: thing
        for name in module.__all__
        if isinstance(thing := getattr(module, name), type) and thing.__module__ == module.__name__
    }


def words(thing: Any) -> str | None:
    """What a docstring says: from 3.13 on, Python takes the indentation off when it compiles one."""
    return None if thing.__doc__ is None else inspect.cleandoc(thing.__doc__)


def members(cls: type) -> dict[str, Any]:
    """Public methods and properties of a class, its own."""
    return {
        name: thing
        for name, thing in vars(cls).items()
        if name not in MACHINERY
        and (
            not name.startswith("_")
            or name in ("__init__", "__enter__", "__exit__", "__iter__", "__next__", "__repr__")
        )
        and (callable(thing) or isinstance(thing, property) or inspect.isdatadescriptor(thing))
    }


def is_property(thing: Any) -> bool:
    return isinstance(thing, property) or (inspect.isdatadescriptor(thing) and not callable(thing))


def test_there_is_something_to_look_at() -> None:
    assert {"protocol.frames", "protocol.messages", "protocol.connection", "protocol.masking", "wire"} <= set(
        MODULES
    )


@pytest.mark.parametrize("module", MODULES)
def test_the_module_is_compiled_as_a_whole(pure_name: str, module: str) -> None:
    compiled, pure = both(pure_name, module)
    assert is_compiled(compiled)
    assert not is_compiled(pure)


@pytest.mark.parametrize("module", MODULES)
def test_exported_names(pure_name: str, module: str) -> None:
    compiled, pure = both(pure_name, module)
    assert compiled.__all__ == pure.__all__
    assert all(hasattr(compiled, name) for name in pure.__all__)
    assert set(public_classes(compiled)) == set(public_classes(pure))
    if module not in TWINS:
        assert words(compiled) == words(pure)


@pytest.mark.parametrize("module", TWINS)
def test_functions_of_twins(pure_name: str, module: str) -> None:
    compiled, pure = both(pure_name, module)
    for name in pure.__all__:
        ours, theirs = getattr(compiled, name), getattr(pure, name)
        if isinstance(theirs, type):
            assert members(ours).keys() == members(theirs).keys(), name
            for member in [member for member in members(theirs) if not member.startswith("__")]:
                if not is_property(members(theirs)[member]):
                    pair = members(ours)[member], members(theirs)[member]
                    assert parameters(pair[0]) == parameters(pair[1]), f"{name}.{member}"
        else:
            assert parameters(ours) == parameters(theirs), name


@pytest.mark.parametrize("module", SAME_SOURCE)
def test_classes(pure_name: str, module: str) -> None:
    compiled, pure = both(pure_name, module)
    for name, theirs in public_classes(pure).items():
        ours = getattr(compiled, name)
        assert words(ours) == words(theirs), name
        assert [base.__name__ for base in ours.__mro__] == [base.__name__ for base in theirs.__mro__]
        # Of what the source keeps in slots, attributes whose names are public can be seen.
        for slot in getattr(theirs, "__slots__", ()):
            if not slot.startswith("_"):
                assert slot in vars(ours), f"{name}.{slot}"


@pytest.mark.parametrize("module", SAME_SOURCE)
def test_methods(pure_name: str, module: str) -> None:
    compiled, pure = both(pure_name, module)
    for name, theirs in public_classes(pure).items():
        ours = getattr(compiled, name)
        for member, thing in members(theirs).items():
            where = f"{name}.{member}"
            assert member in vars(ours), where
            mine = vars(ours)[member]
            if is_property(thing):
                assert is_property(mine), where
                continue
            assert callable(mine), where
            if not member.startswith("__"):
                assert words(mine) == words(thing), where
                assert parameters(mine) == parameters(thing), where
        extra = {member for member in members(ours) if member not in vars(theirs)}
        assert not extra, f"{name} has {extra} when compiled"
