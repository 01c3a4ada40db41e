"""What the tests of other people's clients share. The default run does not collect them: tox -e clients."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# They need the packages in requirements.txt, and minutes; files named on the command line are collected.
collect_ignore_glob = ["test_*.py"]

TRANSPORTS = ("tcp", "tls", "unix")

CHECKS = pytest.StashKey[dict[tuple[str, str], collections.Counter[str]]]()
NODE = pytest.StashKey[str]()
VERSION = pytest.StashKey[str]()
FAULTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CHECKS] = collections.defaultdict(collections.Counter)


def cell_of(item: pytest.Item) -> tuple[str, str]:
    """Return the row and the column in which a test counts."""
    parameters = item.callspec.params
    return parameters["client"], parameters.get("transport", "tcp")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    # The hook sees all tests of a run, ours are those in this directory.
    if pathlib.Path(__file__).parent in item.path.parents and report.outcome != "passed":
        item.config.stash[CHECKS][cell_of(item)][report.outcome] += 1
    return report


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    yield
    # The servers have been stopped by now, also where the run was.
    if session.config.stash.get(FAULTS, []):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    cells = config.stash[CHECKS]
    if not cells:
        return
    terminalreporter.section(f"clients against {config.stash.get(VERSION, 'no server')}")
    terminalreporter.write_line("".ljust(18) + "".join(name.ljust(22) for name in TRANSPORTS))
    for client in dict.fromkeys(client for client, _ in cells):
        row = client.ljust(18)
        for transport in TRANSPORTS:
            counts = cells.get((client, transport), {})
            parts = [f"{counts[key]} {key}" for key in ("ok", "failed", "skipped") if counts.get(key)]
            row += (", ".join(parts) or "-").ljust(22)
        terminalreporter.write_line(row.rstrip())
    terminalreporter.write_line("ok: checks of single exchanges; failed, skipped: tests")
    for fault in config.stash.get(FAULTS, []):
        terminalreporter.write_line(f"*** when the servers were stopped: {fault}", red=True, bold=True)
    node = config.stash.get(NODE, "")
    if node.startswith("SKIPPED"):
        terminalreporter.write_line("")
        terminalreporter.write_line(f"*** {node}", red=True, bold=True)
        terminalreporter.write_line(
            "*** GEVENTWS_REQUIRE_NODE=yes makes that a failure.", red=True, bold=True
        )


class Checks:
    """Counts what was found right, for the table at the end."""

    def __init__(self, counter: collections.Counter[str]) -> None:
        self.counter = counter

    def ok(self, count: int = 1) -> None:
        """Count."""
        self.counter["ok"] += count


@pytest.fixture
def checks(request: pytest.FixtureRequest) -> Checks:
    """Where a test counts its checks."""
    return Checks(request.config.stash[CHECKS][cell_of(request.node)])


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The servers under test; one that ends badly fails the run."""
    from clients.processes import Servers

    servers = Servers(tmp_path_factory.mktemp("servers"))
    request.config.stash[VERSION] = servers.version
    yield servers
    request.config.stash[FAULTS] = servers.stop()


@pytest.fixture(autouse=True)
def servers_in_order(servers: Any) -> Iterator[None]:
    """A server that has ended, or written a traceback, fails the test in which it did."""
    before = servers.check_running()
    yield
    new = [fault for fault in servers.check_running() if fault not in before]
    assert not new, "\n".join(new)


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Node with `ws`; without, the tests that need it are skipped, or fail where it is required."""
    from clients.processes import NodeMissing, install_node_modules

    stash = request.config.stash
    if NODE not in stash:
        place = os.environ.get("GEVENTWS_NODE_DIR")
        try:
            stash[NODE] = install_node_modules(
                pathlib.Path(place) if place else tmp_path_factory.mktemp("node")
            )
        except NodeMissing as missing:
            stash[NODE] = f"SKIPPED: Node's ws, {missing}"
    if stash[NODE].startswith("SKIPPED"):
        if os.environ.get("GEVENTWS_REQUIRE_NODE") == "yes":
            pytest.fail(f"GEVENTWS_REQUIRE_NODE is yes: {stash[NODE]}")
        pytest.skip(stash[NODE])
    return stash[NODE]


@pytest.fixture
def connect(request: pytest.FixtureRequest, client: str, tmp_path: pathlib.Path) -> Callable[..., Any]:
    """Make a connection of the client under test: `connect(address, resource, offer)`, for `with`."""
    from clients.adapters import CLIENTS

    if client == "Node ws":
        request.getfixturevalue("node")

    def make(address: Any, resource: str, offer: Any = None) -> Any:
        return CLIENTS[client](address, resource, offer, tmp_path)

    return make
