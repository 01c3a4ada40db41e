"""The inputs of the fuzzers that are kept: those they begin with, and those that have found something.

What a fuzzer finds goes to `fuzz/findings/TARGET/`, named after what it was, and is asked here from then on.
"""

from __future__ import annotations

import sys
import zlib
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


def test_what_is_excused_behind_a_small_window_is_that_alone() -> None:
    from streams import encode
    from targets import messages
    from targets.both import UNDER_TEST

    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    stream = b""
    for _ in range(2):
        data = compressor.compress(b"the same once more, " * 3) + compressor.flush(zlib.Z_SYNC_FLUSH)
        stream += encode(0xC2, data[:-4], None)
    options = {"client": True, "max_message_size": None}

    def see(bits: int | None, **more: bool) -> tuple[dict[str, object], tuple[object, ...]]:
        negotiated = {
            "server_no_context_takeover": False,
            "client_no_context_takeover": False,
            "server_max_window_bits": bits,
            "client_max_window_bits": None,
        }
        return negotiated, messages._see(UNDER_TEST, [stream], options, negotiated | more)

    def agree(bits: int | None, whole: tuple[object, ...]) -> bool:
        # As if the context had been lost where it was cut.
        _, cut = see(bits, server_no_context_takeover=True)
        assert "too far back" in str(cut[5])
        pieces = [stream[:9], stream[9:]]
        return messages.agree_when_cut(stream, pieces, options, see(bits)[0], whole, cut)

    _, (events, *more) = see(9)
    assert not agree(None, see(None)[1])
    assert not agree(15, see(15)[1])
    # Behind a small window zlib may do that, but neither misread nor lose a message.
    assert agree(9, (events, *more))
    assert not agree(9, (events[:-1], *more))
    assert not agree(9, ([events[0], (b"else", 4)], *more))
