"""What the tests behind proxies share. The default run does not collect them: tox -e proxies."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

# They need programs of Debian; files named on the command line are collected.
collect_ignore_glob = ["test_*.py"]

MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session", autouse=True)
def programs(request: pytest.FixtureRequest) -> None:
    """The proxies; without one of them all is skipped, or fails where they are required."""
    from proxies.programs import ProgramMissing, check_programs

    try:
        check_programs()
    except ProgramMissing as missing:
        request.config.stash[MISSING] = str(missing)
        if os.environ.get("GEVENTWS_REQUIRE_PROXIES") == "yes":
            pytest.fail(f"GEVENTWS_REQUIRE_PROXIES is yes: {missing}")
        pytest.skip(str(missing))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    missing = config.stash.get(MISSING, "")
    if missing:
        terminalreporter.write_line(f"*** SKIPPED: {missing}", red=True, bold=True)
        terminalreporter.write_line(
            "*** GEVENTWS_REQUIRE_PROXIES=yes makes that a failure.", red=True, bold=True
        )


@pytest.fixture(autouse=True)
def no_proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names no proxy but those that a test names."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Certificate:
    """One for this machine, and what trusts it.

    Attributes:
        path: a file with certificate and key.
        context: a client's.
    """

    def __init__(self, folder: Path) -> None:
        import gevent.ssl

        authority = trustme.CA()
        self.path = folder / "certificate.pem"
        pem = authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem
        pem.write_to_path(str(self.path))
        self.context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.context)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Ends what a test has entered."""
    with contextlib.ExitStack() as stack:
        yield stack
