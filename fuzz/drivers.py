"""The two drivers: each runs in a process of its own, so that a crash of it is a finding as well.

`python fuzz/drivers.py atheris TARGET [options and directories of libFuzzer]` is what services that fuzz
continuously run.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import targets

__all__ = ["CORPUS", "Result", "run"]

CORPUS = Path(__file__).parent / "corpus"


class Result(NamedTuple):
    """What one driver did with one target."""

    driver: str
    target: str
    executions: int
    asked: int
    seconds: float
    findings: int

    def __str__(self) -> str:
        return (
            f"{self.target:14} {self.driver:8} {self.executions:>10} executions, "
            f"{self.asked} of them with all, in {self.seconds:.0f} s: {self.findings} findings"
        )


def run(driver: str, name: str, arguments: argparse.Namespace) -> Result:
    """Run one driver on one target, in a process of its own."""
    work = arguments.work / name
    for directory in (work / "corpus", work / "findings"):
        directory.mkdir(parents=True, exist_ok=True)
    seconds, runs = arguments.seconds, arguments.runs
    begun = time.monotonic()
    before = set((work / "findings").iterdir())
    if driver == "fast":
        command = [
            sys.executable,
            __file__,
            "fast",
            name,
            str(work),
            str(arguments.seed),
            str(arguments.every),
        ]
        command += [str(seconds or 0), str(runs or 0)]
    else:
        command = [sys.executable, __file__, "atheris", name, str(work / "corpus"), str(CORPUS / name)]
        command += [
            f"-artifact_prefix={work / 'findings'}/",
            f"-seed={arguments.seed}",
            "-print_final_stats=1",
        ]
        command += [
            f"-max_len={targets.target(name).most}",
            "-timeout=20",
            "-rss_limit_mb=1024",
            "-use_value_profile=1",
        ]
        command += [f"-max_total_time={int(seconds)}"] if seconds else []
        command += [f"-runs={runs}"] if runs else []
    with open(work / f"{driver}.log", "w") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    text = (work / f"{driver}.log").read_text(errors="replace")
    counted = re.findall(r"stat::number_of_executed_units: (\d+)|^#(\d+)\t", text, re.MULTILINE)
    executions = max((int(first or second) for first, second in counted), default=0)
    asked = int(found[-1]) if (found := re.findall(r"asked (\d+)", text)) else executions
    findings = len(set((work / "findings").iterdir()) - before)
    if ended.returncode != 0:
        print(text[-6000:], file=sys.stderr)
        findings = max(findings, 1)
    return Result(driver, name, executions, asked, time.monotonic() - begun, findings)


def atheris_main(name: str, options: list[str]) -> None:
    """libFuzzer over the pure sources, and everybody else beside them."""
    import atheris
    from targets.both import PURE

    target = targets.target(name)
    for module in vars(PURE).values():
        _instrument(atheris, module)

    def test_one_input(data: bytes) -> None:
        target.check(data)

    words = "".join('"' + "".join(f"\\x{octet:02x}" for octet in word) + '"\n' for word in target.dictionary)
    # libFuzzer ends the process itself, so that this one stays: the same name each time.
    dictionary = Path(tempfile.gettempdir(), f"geventws-fuzz-{os.getuid()}-{name}.dict")
    dictionary.write_text(words)
    atheris.Setup([sys.argv[0], f"-dict={dictionary}", *options], test_one_input)
    atheris.Fuzz()


def _instrument(atheris: object, module: object) -> None:
    """Have libFuzzer see the branches of all functions of a module, those in classes too."""
    name = module.__name__  # type: ignore[attr-defined]
    for thing in list(vars(module).values()):
        if getattr(thing, "__module__", None) != name:
            continue
        for function in vars(thing).values() if isinstance(thing, type) else [thing]:
            function = getattr(function, "__func__", getattr(function, "fget", None) or function)
            if hasattr(function, "__code__"):
                atheris.instrument_func(function)  # type: ignore[attr-defined]


class Mutator:
    """Changes inputs at random: bits, octets, pieces of them and of others, and words that mean something."""

    def __init__(self, seed: int, corpus: list[bytes], dictionary: list[bytes], most: int) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus
        self.dictionary = dictionary
        self.most = most

    def next(self) -> bytes:
        """One more input."""
        rng = self.random.random
        corpus = self.corpus
        data = bytearray(corpus[int(rng() * len(corpus))])
        for _ in range(1 + int(rng() * rng() * 6)):
            size = len(data)
            at = int(rng() * (size + 1))
            which = int(rng() * 8)
            if which == 0 and at < size:
                data[at] ^= 1 << int(rng() * 8)
            elif which == 1 and at < size:
                data[at] = int(rng() * 256)
            elif which == 2:
                data[at:at] = self.dictionary[int(rng() * len(self.dictionary))]
            elif which == 3:
                word = self.dictionary[int(rng() * len(self.dictionary))]
                data[at : at + len(word)] = word
            elif which == 4:
                del data[at : at + 1 + int(rng() * rng() * 16)]
            elif which == 5:
                data[at:at] = data[at : at + 1 + int(rng() * 24)]
            elif which == 6:
                other = corpus[int(rng() * len(corpus))]
                start = int(rng() * (len(other) + 1))
                data[at:at] = other[start : start + 1 + int(rng() * 48)]
            elif which == 7:
                del data[at:]
        return bytes(data[: self.most])


def fast_main(name: str, work: Path, seed: int, every: int, seconds: float, runs: int) -> int:
    """Mutate at random and fast; what is of a new kind is mutated further."""
    target = targets.target(name)
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] or [b""]
    mutator = Mutator(seed, corpus, target.dictionary, target.most)
    kinds = set()
    executions = asked = findings = 0
    begun = time.monotonic()
    data = b""
    try:
        for data in list(corpus):
            kinds.add(target.quick(data))
            target.check(data)
            executions, asked = executions + 1, asked + 1
        while True:
            # The time is looked at now and then.
            for _ in range(256):
                data = mutator.next()
                kind = target.quick(data)
                executions += 1
                if kind not in kinds:
                    kinds.add(kind)
                    corpus.append(data)
                elif executions % every:
                    continue
                target.check(data)
                asked += 1
            if (runs and executions >= runs) or (seconds and time.monotonic() - begun >= seconds):
                break
    except KeyboardInterrupt:
        pass
    except Exception:
        findings = 1
        traceback.print_exc()
        path = work / "findings" / f"fast-{seed}-{executions}"
        path.write_bytes(data)
        print(f"{path}: {data!r}")
    print(f"stat::number_of_executed_units: {executions}\nasked {asked}\nkinds {len(kinds)}")
    return findings


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from targets.both import steady_keys

    held = steady_keys()
    held.__enter__()
    if sys.argv[1] == "atheris":
        atheris_main(sys.argv[2], sys.argv[3:])
    else:
        _, _, chosen, directory, *numbers = sys.argv
        seed, every = map(int, numbers[:2])
        sys.exit(fast_main(chosen, Path(directory), seed, every, float(numbers[2]), int(numbers[3])))
