"""tests/mutation: a change takes its original's place, and a survivor that nobody explains fails the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "mutation"))

import mutants

sys.path.pop()


def load_run() -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("mutation_run", Path(__file__).parent / "mutation/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load_run()

KILLED = [(f"frames.{number}", "killed", "frames: - a  + b") for number in range(18)]
CODEC = 'handshake: - x = y.encode("ascii")  + x = y.encode("ASCII")'


def test_a_change_is_seen_by_whoever_has_imported_the_function() -> None:
    def original(value: int, *, step: int = 1) -> int:
        return value + step

    def changed(value: int, *, step: int = 2) -> int:
        return value - step

    imported = original
    mutants.put_in_place(original, changed)
    assert imported(10) == 8


@pytest.mark.parametrize(
    ("verdicts", "is_well"),
    [
        ([], True),
        ([("frames.x", "hung", "frames: - a  + b")], True),
        ([("frames.x", "survived", "frames: - a  + b")], False),
        ([("frames.x", "no tests", "frames: - a  + b")], False),
        # One of twenty, and explained; the second of the same kind is not.
        ([("frames.x", "survived", "frames: - c  + d")], True),
        ([("frames.x", "survived", "frames: - c  + d")] * 2, False),
        # Names of codecs and fields are the same in other letters, numbers are not.
        ([("frames.x", "survived", CODEC)], True),
        ([("frames.x", "survived", CODEC.replace("ASCII", "utf-8"))], False),
        # Below 90 %, though each of them is explained.
        ([("frames.x", "survived", CODEC)] * 3, False),
    ],
)
def test_verdict(
    monkeypatch: pytest.MonkeyPatch, verdicts: list[tuple[str, str, str]], is_well: bool
) -> None:
    monkeypatch.setattr(run, "known", lambda: ["frames: - c  + d"])
    assert run.report([*KILLED, *verdicts], whole=True) is is_well


def test_each_survivor_that_is_known_has_a_reason() -> None:
    lines = (Path(__file__).parent / "mutation/survivors.txt").read_text(encoding="utf-8").splitlines()
    before = ""
    for line in lines:
        if line and not line.startswith("#"):
            assert before.startswith("#") or before.partition(":")[0] in run.MODULES, line
            assert line.partition(":")[0] in run.MODULES
        before = line
