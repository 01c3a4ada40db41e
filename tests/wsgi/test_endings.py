"""A handler that raises, exits, is killed or blocks: its client is told, and the server serves on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HERE, KINDS, Kind, Server
from support import RawClient, close, text, wait_until

pytestmark = pytest.mark.deadline(60)

STANDALONE = Kind("standalone", (str(HERE / "endings_under_test.py"), "{app}"))
ON_GEVENT = ("pywsgi", "handler", "gunicorn-gevent", "gunicorn-pywsgi", "gunicorn-worker")
HOSTS = [STANDALONE, *(kind for kind in KINDS if kind.name in ON_GEVENT)]

#: The close code that tells how it ended.
CODES = {
    "return": 1000,
    "raise": 1011,
    "exit": 1011,
    "memory": 1011,
    "greenlet-exit": 1001,
    "kill": 1001,
    "timeout": 1011,
    "block": 1000,
}


@pytest.fixture(scope="module", params=HOSTS, ids=lambda kind: kind.name)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, one for all tests."""
    folder: Path = tmp_path_factory.mktemp(request.param.name)
    server = Server(request.param, folder, folder, folder, "endings_under_test:app")
    yield server
    server.stop()


@pytest.mark.parametrize("ending", CODES)
def test_the_client_is_told_and_the_server_lives(host: Server, ending: str) -> None:
    with RawClient.connect(host.address, b"/echo") as other:
        with RawClient.connect(host.address, f"/{ending}".encode()) as client:
            client.send(text("go"))
            client.expect(0x81, b"go")
            client.expect_close(CODES[ending])
            client.send(close(CODES[ending]))
            client.expect_end()
        # Who was connected is served, and so is who comes now.
        for one in (other, RawClient.connect(host.address, b"/echo")):
            with one:
                one.send(text("still here?"))
                one.expect(0x81, b"still here?")
                one.send(close(1000))
                one.expect_close(1000)
                one.expect_end()
    assert host.process.poll() is None


def test_what_was_raised_is_logged_once(host: Server) -> None:
    """And nowhere else: neither as an error of the server nor of a greenlet."""

    def tracebacks() -> int:
        return host.output().count("ValueError: on purpose")

    before = tracebacks()
    with RawClient.connect(host.address, b"/raise") as client:
        client.send(text("go"))
        client.expect(0x81, b"go")
        client.expect_close(1011)
        client.send(close(1011))
        client.expect_end()
    wait_until(lambda: tracebacks() > before, "the traceback")
    # Whoever else would log it has done so when the next one was served.
    with RawClient.connect(host.address, b"/return") as client:
        client.send(text("go"))
        client.expect(0x81, b"go")
        client.expect_close(1000)
    assert tracebacks() == before + 1
