"""What all tests share: a deadline for each, leak checks, and the build that is under test."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import greenlet
import hypothesis
import pytest

import geventws

DEADLINE = 30.0

# A busy machine may be slow at any moment: no test fails because one example took long.
hypothesis.settings.register_profile("geventws", deadline=None, print_blob=True)
hypothesis.settings.load_profile("geventws")

# Child processes that a test starts import the very package that is under test: below, they get a
# working directory without another one, and here the path to one that is not installed.
_PARENT = str(Path(geventws.__file__).resolve().parents[1])
if "site-packages" not in _PARENT:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_PARENT, os.environ.get("PYTHONPATH")]))


def _tell_of_open_watchers() -> None:
    """Make a watcher that nobody has closed an error, on gevent's libuv loop.

    Its memory is freed while libuv still has it in a list, and the process ends much later, somewhere
    else. A gevent.Timeout has one that only its `close()` closes.
    """
    from gevent.libuv import watcher

    def tell(self: Any) -> None:
        if self._watcher is not None and self.loop is not None and self.loop.ptr and not sys.is_finalizing():
            what = repr(self)
            self.close()
            warnings.warn(f"never closed: {what}", ResourceWarning, stacklevel=2)

    for kind in (watcher.io, watcher.timer):
        kind.__del__ = tell


if "libuv" in gevent.config.loop.__module__:
    _tell_of_open_watchers()


@pytest.fixture(autouse=True, scope="session")
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`python -m` and `python -c` look into the working directory first, where the source tree may lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("working-directory"))
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--interruptions", type=int, help="kills and time-outs in tests/torture, in all, instead of a few"
    )
    parser.addoption("--every-byte", action="store_true", help="faults in tests/chaos at each byte")


def pytest_report_header() -> str:
    return (
        f"geventws {geventws.__version__} ({geventws.IMPLEMENTATION}) from {_PARENT}, "
        f"gevent {gevent.__version__}, loop {gevent.config.loop.__module__}, greenlet {greenlet.__version__}"
    )


class DeadlineExceeded(gevent.Timeout):
    """A test took too long. Not an Exception, so that no `except Exception` swallows it."""

    def __str__(self) -> str:
        return f"the test took longer than its deadline of {self.seconds:g} s"


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[gevent.Timeout]:
    """Fail a test that waits too long in gevent; `@pytest.mark.deadline(seconds)` allows more.

    It reaches what waits cooperatively, which is what a hanging test here nearly always does.
    The rest is caught by pytest-timeout, which ends the run.
    """
    mark = request.node.get_closest_marker("deadline")
    timer = DeadlineExceeded(mark.args[0] if mark is not None else DEADLINE)
    timer.start()
    try:
        yield timer
    finally:
        timer.close()


@pytest.fixture
def compiled_only() -> None:
    """Skip the test in the pure build."""
    if geventws.IMPLEMENTATION != "compiled":
        pytest.skip("only in the compiled build")


@pytest.fixture
def pure_only() -> None:
    """Skip the test in the compiled build."""
    if geventws.IMPLEMENTATION != "pure":
        pytest.skip("only in the pure build")


def _descriptors() -> dict[int, str]:
    """The open descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the descriptor of the listing itself
    return found


def _greenlets() -> set[int]:
    """The identities of the greenlets that were started and have not ended."""
    current = greenlet.getcurrent()
    return {
        id(thing)
        for thing in gc.get_objects()
        if isinstance(thing, greenlet.greenlet)
        and not isinstance(thing, gevent.hub.Hub)
        # gevent's pool of threads grows when it is used and stays for the next who needs it.
        and type(thing).__module__ != "gevent.threadpool"
        and thing is not current
        and thing.parent is not None
        and not thing.dead
        and bool(thing)
    }


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a descriptor, a thread or a greenlet behind.

    For a whole file: `pytestmark = pytest.mark.usefixtures("no_leaks")`. Ask for it before other
    fixtures, so that it looks last.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("descriptors are listed through /proc")
    gevent.sleep(0)  # the hub, its descriptors and its watchers exist from here on
    gc.collect()
    # What is here now is not looked at any more, here or by a test: after thousands of tests it is so much
    # that each look would take seconds.
    gc.freeze()
    descriptors, threads, greenlets = _descriptors(), set(threading.enumerate()), _greenlets()
    yield
    for _ in range(50):
        # What the test has stopped may need a few turns of the loop to be gone.
        gevent.sleep(0)
        gc.collect()
        opened = {fd: name for fd, name in _descriptors().items() if descriptors.get(fd) != name}
        started = [thread for thread in threading.enumerate() if thread not in threads]
        running = _greenlets() - greenlets
        if not (opened or started or running):
            return
        gevent.sleep(0.02)
    left = [thing for thing in gc.get_objects() if id(thing) in running]
    pytest.fail(f"left behind: descriptors {opened}, threads {started}, greenlets {left}")
