"""Fixtures for the WSGI servers."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from servers import KINDS, Kind, Server
from table import CELL, Table

MATRIX = "test_matrix.py"

TABLE = pytest.StashKey[Table]()


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


@pytest.fixture
def says(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have the cell of the table that this test is for say something else than "yes"."""
    return lambda words: request.node.user_properties.append((CELL, words))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not the core of the matrix, unless that file is named."""
    if any(Path(argument.partition("::")[0]).name == MATRIX for argument in config.args):
        return
    left_out = [item for item in items if item.path.name == MATRIX and not item.get_closest_marker("core")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Keep what becomes of each cell of the matrix."""
    report = yield
    if item.path.name == MATRIX and (report.when == "call" or report.failed) and not report.skipped:
        kind = next(value for value in item.callspec.params.values() if isinstance(value, Kind))
        item.config.stash[TABLE].add(item.originalname, kind.name, report.passed, dict(item.user_properties))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the page, where GEVENTWS_WSGI_TABLE names one; a cell that was not tested is a failure."""
    path = os.environ.get("GEVENTWS_WSGI_TABLE")
    if path and exitstatus == 0:
        table = session.config.stash[TABLE]
        try:
            Path(path).write_text(table.page(), encoding="utf-8")
        except ValueError as error:
            print(f"\n{path} is left as it was: {error}", file=sys.stderr)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
