"""The inputs of the fuzzers that are kept: those they begin with, and those that have found something.

What a fuzzer finds goes to `fuzz/findings/TARGET/`, named after what it was, and is asked here from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ))

import drivers  # noqa: E402
import targets  # noqa: E402

pytestmark = pytest.mark.usefixtures("steady_keys")

INPUTS = [
    pytest.param(name, path, id=f"{name}-{path.name}")
    for name in targets.names()
    for directory in (FUZZ / "corpus" / name, FUZZ / "findings" / name)
    if directory.is_dir()
    for path in sorted(directory.iterdir())
]


@pytest.fixture
def steady_keys() -> Iterator[None]:
    """Have a client's masking keys the same each time; other tests want them otherwise."""
    from targets import both

    with both.steady_keys():
        yield


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_all_agree(name: str, path: Path) -> None:
    target = targets.target(name)
    data = path.read_bytes()
    target.quick(data)
    target.check(data)


@pytest.mark.parametrize("name", targets.names())
def test_there_is_a_corpus(name: str) -> None:
    assert len(list((FUZZ / "corpus" / name).iterdir())) >= 8


@pytest.mark.parametrize("name", targets.names())
def test_a_few_hundred_that_are_made_of_them(name: str) -> None:
    target = targets.target(name)
    corpus = [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]
    mutator = drivers.Mutator(2455, corpus, target.dictionary, target.most)
    kinds = {target.quick(mutator.next()) for _ in range(300)}
    # All the same would mean that nothing is read.
    assert len(kinds) > 10
    for _ in range(60):
        target.check(mutator.next())


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that one build forgets is an AssertionError."""
    from targets import frames

    target = targets.target("frames_server")
    data = (FUZZ / "corpus" / "frames_server" / "close-reserved").read_bytes()
    target.check(data)
    monkeypatch.setattr(frames.BUILDS[1].closing, "is_sendable_close_code", lambda code: True)
    with pytest.raises(AssertionError):
        target.check(data)


def test_what_others_reject_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that both forget: others read the same bytes."""
    from targets import frames

    target = targets.target("frames_server")
    data = (FUZZ / "corpus" / "frames_server" / "close-reserved").read_bytes()
    for build in frames.BUILDS:
        monkeypatch.setattr(build.closing, "is_sendable_close_code", lambda code: True)
    with pytest.raises(AssertionError):
        target.check(data)
