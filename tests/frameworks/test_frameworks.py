"""The examples for Bottle, Django and Pyramid: pages, WebSockets and refusals on two servers."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import DEADLINE, Process, open_client
from websockets.exceptions import ConnectionClosed, InvalidStatus

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# tests/test_examples.py looks for these: example("bottle_app.py"), example("django_app.py"),
# example("pyramid_app.py").
NAMES = ["bottle_app", "django_app", "pyramid_app"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["pywsgi", "gunicorn"])
def site(request: pytest.FixtureRequest, name: str) -> Iterator[tuple[Process, str]]:
    """A running example, and the host and port where it is."""
    if request.param == "pywsgi":
        # Warnings of other people's packages are not ours.
        with Process("-W", "default", EXAMPLES / f"{name}.py", "0") as process:
            yield process, process.url().removeprefix("http://")
        return
    command = ("-W", "default", "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", "--no-control-socket")
    with Process(*command, "--chdir", EXAMPLES, f"{name}:app") as process:
        yield process, process.wait_for_error(r"Listening at: http://(127\.0\.0\.1:\d+)")[1]
        process.stop()


def test_page_echo_and_refusals(site: tuple[Process, str]) -> None:
    process, address = site
    with urllib.request.urlopen(f"http://{address}/", timeout=DEADLINE) as page:
        assert b"echo at /echo" in page.read()
    with pytest.raises(urllib.error.HTTPError, match="426"):
        urllib.request.urlopen(f"http://{address}/echo", timeout=DEADLINE)
    for path, status in (("/elsewhere", 404), ("/echo?token=wrong", 401)):
        with pytest.raises(InvalidStatus) as caught:
            open_client(f"ws://{address}", path)
        assert caught.value.response.status_code == status
    with open_client(f"ws://{address}", "/echo") as client:
        for message in ("text", b"binary", "x" * 100_000):
            client.send(message)
            assert client.recv(timeout=DEADLINE) == message
    assert not re.search("Traceback", process.errors())


def test_stops_in_order(name: str) -> None:
    with Process("-W", "default", EXAMPLES / f"{name}.py", "0") as process:
        with open_client(process.url().replace("http:", "ws:"), "/echo") as client:
            client.send("here")
            assert client.recv(timeout=DEADLINE) == "here"
            process.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(timeout=DEADLINE)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        assert process.wait() == 0
