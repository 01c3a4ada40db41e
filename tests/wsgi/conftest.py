"""Fixtures for the WSGI servers."""

from __future__ import annotations

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
