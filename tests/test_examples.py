"""The examples, each as a process of its own with real clients: what it promises is what it does."""

from __future__ import annotations

import json
import re
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from processes import DEADLINE, Process, open_client, trust
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str, *arguments: str | Path) -> Process:
    return Process(EXAMPLES / name, *arguments)


def receive(client: ClientConnection) -> str | bytes:
    return client.recv(timeout=DEADLINE)


def stops_in_order(process: Process, client: ClientConnection) -> None:
    """SIGTERM: the client gets 1001, the process ends with 0 and without complaint."""
    process.signal(signal.SIGTERM)
    close = None
    try:
        while True:
            receive(client)
    except ConnectionClosed as closed:
        close = closed.rcvd
    assert close is not None
    assert close.code == 1001
    assert process.wait() == 0
    assert process.errors() == ""


def test_every_example_is_short_listed_and_tested() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = (Path(__file__), Path(__file__).parent / "frameworks" / "test_frameworks.py")
    tested = "".join(path.read_text(encoding="utf-8") for path in tests)
    names = [path.name for path in sorted(EXAMPLES.glob("*.py"))]
    assert names
    for name in names:
        lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 60, f"{name} has {len(lines)} lines"
        assert f"[{name}]({name})" in listed
        assert f'example("{name}"' in tested, name


def test_echo() -> None:
    with example("echo.py", "0") as process, open_client(process.url()) as client:
        for message in "text", b"binary", "":
            client.send(message)
            assert receive(client) == message
        stops_in_order(process, client)


@pytest.fixture(scope="module")
def chat() -> Iterator[tuple[Process, str]]:
    with example("chat.py", "0") as process:
        yield process, process.url()


class TestChat:
    def test_members_are_told_who_joins_speaks_and_leaves(self, chat: tuple[Process, str]) -> None:
        with open_client(chat[1], "/chat/tea?name=Ann") as ann:
            assert receive(ann) == "Ann joined"
            with open_client(chat[1], "/chat/tea?name=Bob%20B") as bob:
                assert receive(ann) == "Bob B joined"
                assert receive(bob) == "Bob B joined"
                bob.send("hello")
                assert receive(ann) == "Bob B: hello"
                assert receive(bob) == "Bob B: hello"
            assert receive(ann) == "Bob B left"

    def test_member_that_breaks_off_has_left_too(self, chat: tuple[Process, str]) -> None:
        with (
            open_client(chat[1], "/chat/mate?name=Ann") as ann,
            open_client(chat[1], "/chat/mate?name=Bob") as bob,
        ):
            assert {receive(ann), receive(ann)} == {"Ann joined", "Bob joined"}
            # An unmasked frame, which no client may send.
            bob.socket.sendall(b"\x81\x01x")
            assert receive(ann) == "Bob left"

    def test_rooms_are_apart(self, chat: tuple[Process, str]) -> None:
        with open_client(chat[1], "/chat/oolong") as tea, open_client(chat[1], "/chat/coffee") as coffee:
            assert receive(tea) == "somebody joined"
            assert receive(coffee) == "somebody joined"
            coffee.send("espresso")
            assert receive(coffee) == "somebody: espresso"
            tea.send("oolong")
            assert receive(tea) == "somebody: oolong"

    def test_other_path_is_404(self, chat: tuple[Process, str]) -> None:
        with pytest.raises(InvalidStatus) as caught:
            open_client(chat[1], "/elsewhere")
        assert caught.value.response.status_code == 404

    def test_stops_in_order(self, chat: tuple[Process, str]) -> None:
        with open_client(chat[1], "/chat/last") as client:
            assert receive(client) == "somebody joined"
            stops_in_order(chat[0], client)


def test_feed_notices_that_its_reader_left() -> None:
    # An hour between two prices: nothing but the Close itself tells the handler.
    with example("feed.py", "0", "3600") as process:
        url = process.url()
        with open_client(url) as reader:
            assert json.loads(receive(reader)) == {"price": 100.0}
            # More than the queue of received messages holds; the Close stands behind them.
            for _ in range(100):
                reader.send("nobody reads this")
        assert process.read_line() == "reader left with code 1000"
        with open_client(url) as reader:
            assert json.loads(receive(reader)) == {"price": 100.0}
            reader.close(4000)
        assert process.read_line() == "reader left with code 4000"
        with open_client(url) as reader:
            assert json.loads(receive(reader)) == {"price": 100.0}
            stops_in_order(process, reader)


def test_feed_goes_on() -> None:
    with example("feed.py", "0", "0.001") as process, open_client(process.url()) as reader:
        prices = [json.loads(receive(reader))["price"] for _ in range(20)]
        assert prices[0] == 100.0
        assert len(set(prices)) > 1
        stops_in_order(process, reader)


def scrape(url: str) -> dict[str, float]:
    """Read metrics as Prometheus does: its text format has exactly these kinds of lines."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        text = answer.read().decode()
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    samples: dict[str, float] = {}
    for line in text.splitlines():
        kind = re.fullmatch(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)", line)
        if kind:
            assert kind[1] not in kinds
            kinds[kind[1]] = kind[2]
            continue
        sample = re.fullmatch(r'(([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[a-zA-Z_]\w*="[^"\\\n]*"\})?) (\d+)', line)
        assert sample, line
        # Behind its type, and once.
        assert sample[2] == list(kinds)[-1]
        assert (kinds[sample[2]] == "counter") == sample[2].endswith("_total")
        assert sample[1] not in samples
        samples[sample[1]] = float(sample[3])
    return samples


def test_metrics_show_limits_and_endings() -> None:
    with example("metrics.py", "0", "0") as process:
        where = process.read_line().removeprefix("metrics on ")
        url = process.url()
        before = scrape(where)
        assert before["geventws_connections"] == before["geventws_opened_total"] == 0
        with open_client(url) as client:
            client.send("hello")
            assert receive(client) == "hello"
            assert scrape(where)["geventws_connections"] == 1
        with open_client(url) as client:
            client.socket.sendall(b"\x81\x01x")
            with pytest.raises(ConnectionClosed):
                receive(client)
        with pytest.raises(InvalidStatus):
            open_client(url, origin="https://evil.example")
        process.wait_for_error("protocol_error")
        after = scrape(where)
        assert after["geventws_opened_total"] == 2
        assert after['geventws_closes_total{cause="close"}'] == 1
        assert after['geventws_closes_total{cause="protocol_error"}'] == 1
        assert after['geventws_refusals_total{status="403"}'] == 1
        assert after["geventws_messages_sent_total"] == 1
        # Counters only grow, and every one is there from the start.
        assert before.keys() <= after.keys()
        assert "INFO:geventws.close:connection 2 of " in process.errors()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_tls_with_a_certificate_that_is_verified(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    with example("tls.py", chain, key, "0") as process:
        url = process.url()
        assert url.startswith("wss://127.0.0.1:")
        with pytest.raises(ssl.SSLCertVerificationError):
            open_client(url, ssl=ssl.create_default_context())
        with open_client(url, ssl=trust(authority)) as client:
            client.send("secret")
            assert receive(client) == "secret"
            stops_in_order(process, client)


def test_tls_without_a_certificate_says_how_to_make_one() -> None:
    with example("tls.py") as process:
        assert process.wait() == 1
        assert "openssl req -x509" in process.errors()


def test_plain_wsgi() -> None:
    with example("plain_wsgi.py", "0") as process:
        url = process.url().replace("http:", "ws:")
        with pytest.raises(InvalidStatus) as caught:
            open_client(url, "/elsewhere")
        assert caught.value.response.status_code == 404
        with open_client(url, "/echo") as client:
            client.send("here")
            assert receive(client) == "here"
            stops_in_order(process, client)


class TestFlaskChat:
    """The same program under `python`, `flask run` and gunicorn."""

    def dialogue(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=DEADLINE) as page:
            assert b"new WebSocket(" in page.read()
        url = url.replace("http:", "ws:")
        with open_client(url, "/chat?name=Ann") as ann:
            assert json.loads(receive(ann)) == {"you": "Ann"}
            assert json.loads(receive(ann)) == {"here": ["Ann"], "joined": "Ann"}
            with open_client(url, "/chat?name=Ann") as other:
                assert json.loads(receive(other)) == {"you": "Ann 2"}
                assert json.loads(receive(ann)) == {"here": ["Ann", "Ann 2"], "joined": "Ann 2"}
            assert json.loads(receive(ann)) == {"here": ["Ann"], "left": "Ann 2"}
            with open_client(url, "/chat?name=Bob") as bob:
                assert json.loads(receive(bob)) == {"you": "Bob"}
                for client in ann, bob:
                    assert json.loads(receive(client)) == {"here": ["Ann", "Bob"], "joined": "Bob"}
                bob.send("hello")
                for client in ann, bob:
                    assert json.loads(receive(client)) == {"name": "Bob", "text": "hello"}
            assert json.loads(receive(ann)) == {"here": ["Ann"], "left": "Bob"}

    def test_pywsgi(self) -> None:
        with example("flask_chat.py", "0") as process:
            url = process.url()
            self.dialogue(url)
            with open_client(url.replace("http:", "ws:"), "/chat") as client:
                assert json.loads(receive(client)) == {"you": "somebody"}
                assert json.loads(receive(client))["here"] == ["somebody"]
                stops_in_order(process, client)

    def test_flask_run(self) -> None:
        with Process("-m", "flask", "--app", EXAMPLES / "flask_chat.py", "run", "--port", "0") as process:
            self.dialogue(process.wait_for_error(r"Running on (http://127\.0\.0\.1:\d+)")[1])

    def test_flask_run_with_its_debugger(self) -> None:
        command = ("-m", "flask", "--app", EXAMPLES / "flask_chat.py", "run", "--port", "0")
        with Process(*command, "--debugger") as process:
            self.dialogue(process.wait_for_error(r"Running on (http://127\.0\.0\.1:\d+)")[1])

    @pytest.mark.parametrize("worker", ["gevent", "geventws.gunicorn.GeventWebSocketWorker", "gthread"])
    def test_gunicorn(self, worker: str) -> None:
        command = (
            "-m",
            "gunicorn",
            "-k",
            worker,
            "-b",
            "127.0.0.1:0",
            "--no-control-socket",
            "--threads",
            "8",
        )
        with Process(*command, "--chdir", EXAMPLES, "flask_chat:app") as process:
            self.dialogue(process.wait_for_error(r"Listening at: (http://127\.0\.0\.1:\d+)")[1])
            process.stop()
