"""Fixtures for the WSGI servers."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from servers import KINDS, Kind, Server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ssl.SSLContext]:
    """Files with a certificate's chain and key for "localhost", and a context that trusts it."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    import gevent.ssl

    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return chain, key, context


@pytest.fixture
def start(certificate: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start servers of a kind that end with the test."""
    servers = []

    def start(kind: Kind, *arguments: str) -> Server:
        server = Server(kind, tmp_path_factory.mktemp(kind.name), *certificate[:2], *arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def server(
    request: pytest.FixtureRequest, certificate: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Each of the servers, one for all tests of a file."""
    kind = request.param
    server = Server(kind, tmp_path_factory.mktemp(kind.name), *certificate[:2])
    yield server
    server.stop()


CELLS = pytest.StashKey[dict[str, dict[str, list[bool]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CELLS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Keep what becomes of each cell of the matrix."""
    report = yield
    name = getattr(item, "originalname", item.name)
    if item.path.name == "test_matrix.py" and hasattr(item, "callspec"):
        kind = next((value for value in item.callspec.params.values() if isinstance(value, Kind)), None)
        if kind is not None and (report.when == "call" or report.failed) and not report.skipped:
            cells = item.config.stash[CELLS].setdefault(name, {})
            cells.setdefault(kind.name, []).append(report.passed)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the matrix, a line for each behaviour; GEVENTWS_WSGI_TABLE names a file for it."""
    matrix = config.stash[CELLS]
    if not matrix:
        return
    kinds = [kind.name for kind in KINDS if any(kind.name in cells for cells in matrix.values())]
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name, cells in matrix.items():
        row = [mark(cells.get(kind)) for kind in kinds]
        lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {' | '.join(row)} |")
    terminalreporter.section("WSGI servers")
    terminalreporter.write_line("\n".join(lines))
    if "GEVENTWS_WSGI_TABLE" in os.environ:
        Path(os.environ["GEVENTWS_WSGI_TABLE"]).write_text("\n".join(lines) + "\n", encoding="utf-8")


def mark(outcomes: list[bool] | None) -> str:
    """What a cell says."""
    if outcomes is None:
        return ""
    return "ok" if all(outcomes) else "FAILED"
