"""A pytest plugin that runs each mutant through the tests that were collected: `run.py` starts it.

All tests run once as they are, and it is noted which of them call which function. Then each mutant has a
process of its own, forked from this one, in which the tests that call its function run, the quick ones
first, until one fails. What is collected and imported is so for all of them.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import hypothesis
import mutants
import pytest

#: CPU seconds that a mutant has, beside five times what its tests take. A busy machine takes none of them.
_CPU_SECONDS = 3
#: What a mutant may ask for: one that gathers without end fails for want of memory.
_MOST_MEMORY = 4 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutate", help="the module of geventws.protocol that is changed")
    parser.addoption("--mutants", help="only those with this in their name or change", default="")
    parser.addoption("--verdicts", type=Path, help="where the verdicts are written")
    parser.addoption("--children", type=int, help="mutants at a time")


def pytest_configure() -> None:
    # Behind tests/conftest.py: few examples, always the same ones, run again and again.
    hypothesis.settings.register_profile(
        "mutation",
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutation")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of pytest's own."""
    config = session.config
    module = config.getoption("mutate")
    word = config.getoption("mutants")
    found = [mutant for mutant in mutants.make(module) if word in mutant.name or word in mutant.change]
    callers, seconds = _run_once(session, {mutant.original.__code__ for mutant in found})
    if session.testsfailed:
        raise pytest.UsageError("tests fail that nothing was changed for")
    verdicts: list[tuple[str, str, str]] = []
    running: dict[int, mutants.Mutant] = {}

    def wait() -> None:
        pid, status = os.wait()
        mutant = running.pop(pid)
        verdicts.append((mutant.name, _verdict(status), mutant.change))

    for mutant in found:
        tests = sorted(callers[mutant.original.__code__], key=lambda item: seconds[item])
        if not tests:
            verdicts.append((mutant.name, "no tests", mutant.change))
            continue
        while len(running) >= config.getoption("children"):
            wait()
        limit = _CPU_SECONDS + math.ceil(5 * sum(seconds[item] for item in tests))
        running[_fork(session, mutant, tests, limit)] = mutant
    while running:
        wait()
    config.getoption("verdicts").write_text(json.dumps(verdicts, indent=1), encoding="utf-8")
    return True


def _run_once(
    session: pytest.Session, codes: set[CodeType]
) -> tuple[dict[CodeType, set[Any]], dict[Any, float]]:
    """Run all tests, and say which of them called which code, and how much of the processor each took."""
    callers: dict[CodeType, set[Any]] = defaultdict(set)
    seconds = {}
    called: set[CodeType] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in codes:
            called.add(frame.f_code)

    items = session.items
    for item, following in zip(items, [*items[1:], None], strict=True):
        begun = time.process_time()
        sys.setprofile(look)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            sys.setprofile(None)
        seconds[item] = time.process_time() - begun
        for code in called:
            callers[code].add(item)
        called.clear()
    return callers, seconds


def _fork(session: pytest.Session, mutant: mutants.Mutant, tests: Sequence[Any], limit: int) -> int:
    """Try a mutant in a new process, and return the number of that."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 2
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        session.config.pluginmanager.unregister(name="terminalreporter")
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        mutants.put_in_place(mutant.original, mutant.function)
        status = 0
        for item, following in zip(tests, [*tests[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                status = 1
                break
    except BaseException:
        # Whatever it is that a mutant lets through even here.
        status = 1
    finally:
        os._exit(status)


def _verdict(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "hung" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "killed"
    return {0: "survived", 1: "killed"}.get(os.WEXITSTATUS(status), "killed")
