"""The command line, as a process of its own where it serves, and called where it refuses to."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
import trustme
from processes import DEADLINE, Process, open_client, trust
from websockets.exceptions import ConnectionClosed

import geventws
from geventws.cli import main


def receive_close(client: object) -> tuple[int, str]:
    """Wait for the end of a connection; return the code and the reason that the server sent."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=DEADLINE)  # type: ignore[attr-defined]
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def has_ipv6() -> bool:
    """Tell whether this machine has a loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An echo server without options; in the end it must have nothing to complain about."""
    with Process("-m", "geventws", "echo", "--port", "0") as process:
        yield process.url()
        assert process.stop() == 0
        assert process.errors() == ""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Files: certificate chain, key, and both in one."""
    directory = tmp_path_factory.mktemp("certificate")
    files = directory / "chain.pem", directory / "key.pem", directory / "both.pem"
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files[1])
    issued.private_key_and_cert_chain_pem.write_to_path(files[2])
    return files


class TestVersion:
    def test_version_is_one_line_with_all_versions(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "geventws", "--version"], capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.returncode == 0
        assert done.stderr == ""
        assert done.stdout == (
            f"geventws {geventws.__version__} ({geventws.IMPLEMENTATION}), gevent {gevent.__version__}, "
            f"{platform.python_implementation()} {platform.python_version()}, deflate by {geventws.DEFLATE}\n"
        )

    def test_implementation_is_the_one_that_runs(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "geventws", "--version"],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env={**os.environ, "GEVENTWS_PURE_PYTHON": "1"},
        )
        assert f"geventws {geventws.__version__} (pure), " in done.stdout


class TestEcho:
    def test_announces_its_address(self, url: str) -> None:
        scheme, host, port = url.split(":")
        assert (scheme, host) == ("ws", "//127.0.0.1")
        assert 0 < int(port) < 65536

    @pytest.mark.parametrize(
        "message", ["text", "ünïcode \U0001f40d", "", b"binary\x00\xff", b"", b"x" * 1048576]
    )
    def test_message_comes_back(self, url: str, message: str | bytes) -> None:
        with open_client(url) as client:
            client.send(message)
            assert client.recv(timeout=DEADLINE) == message

    @pytest.mark.parametrize("path", ["/", "/chat/room", "/broadcast/", "/?a=/broadcast", "//x", "/%20%FF"])
    def test_any_path_echoes(self, url: str, path: str) -> None:
        with open_client(url, path) as client, open_client(url, path) as other:
            client.send("mine")
            other.send("other")
            assert client.recv(timeout=DEADLINE) == "mine"
            assert other.recv(timeout=DEADLINE) == "other"

    def test_nothing_is_compressed_and_size_is_limited_by_default(self, url: str) -> None:
        with open_client(url) as client:
            assert client.protocol.extensions == []
            client.send(b"x" * 1048577)
            assert receive_close(client)[0] == 1009

    def test_broadcast_reaches_everyone_there_and_nobody_else(self, url: str) -> None:
        with (
            open_client(url, "/broadcast") as one,
            open_client(url, "/broadcast?name=two") as two,
            open_client(url, "/elsewhere") as elsewhere,
        ):
            # Each has been served once, so that each is known there.
            for client in one, two:
                client.send("hello")
                while client.recv(timeout=DEADLINE) != "hello":
                    pass
            one.send("text")
            two.send(b"binary")
            elsewhere.send("mine")
            for client in one, two:
                found = set()
                while len(found) < 2:
                    found.add(client.recv(timeout=DEADLINE))
                    found.discard("hello")
                assert found == {"text", b"binary"}
            assert elsewhere.recv(timeout=DEADLINE) == "mine"

    def test_broadcast_goes_on_when_somebody_left(self, url: str) -> None:
        with open_client(url, "/broadcast") as one, open_client(url, "/broadcast") as two:
            two.send("two is here")
            assert two.recv(timeout=DEADLINE) == "two is here"
            one.close()
            two.send("still here")
            assert two.recv(timeout=DEADLINE) == "still here"

    def test_peer_that_breaks_off_or_breaks_rules_leaves_no_trace(self, url: str) -> None:
        # The fixture looks at standard error in the end.
        for path in "/", "/broadcast":
            with open_client(url, path) as client:
                client.send("x")
                assert client.recv(timeout=DEADLINE) == "x"
                # An unmasked frame, which no client may send (RFC 6455 section 5.1).
                client.socket.sendall(b"\x81\x01x")
                assert receive_close(client)[0] == 1002
            with open_client(url, path) as client:
                client.socket.shutdown(socket.SHUT_RDWR)
        with open_client(url) as client:
            client.send("alive")
            assert client.recv(timeout=DEADLINE) == "alive"

    def test_limits_and_compression_are_options(self) -> None:
        arguments = ("--compression", "--max-message-size", "1000", "--max-fragments", "3")
        with Process("-m", "geventws", "echo", "--port", "0", *arguments) as process:
            url = process.url()
            with open_client(url) as client:
                assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
                client.send("a" * 1000)
                assert client.recv(timeout=DEADLINE) == "a" * 1000
                client.send("a" * 1001)
                assert receive_close(client)[0] == 1009
            with open_client(url) as client:
                client.send(iter("ab"))
                assert client.recv(timeout=DEADLINE) == "ab"
                # The Close may come before the last of them is sent.
                with contextlib.suppress(ConnectionClosed):
                    client.send(iter("abcd"))
                assert receive_close(client)[0] == 1009
            assert process.stop() == 0
            assert process.errors() == ""

    def test_limits_can_be_lifted(self) -> None:
        arguments = ("--max-message-size", "none", "--max-fragments", "none")
        with Process("-m", "geventws", "echo", "--port", "0", *arguments) as process:
            with open_client(process.url()) as client:
                client.send(b"x" * 1048577)
                assert client.recv(timeout=DEADLINE) == b"x" * 1048577
                client.send(iter(["y"] * 4097))
                assert client.recv(timeout=DEADLINE) == "y" * 4097
            assert process.stop() == 0

    def test_ipv6_address_stands_in_brackets(self) -> None:
        if not has_ipv6():
            return
        with Process("-m", "geventws", "echo", "--host", "::1", "--port", "0") as process:
            url = process.url()
            assert url.startswith("ws://[::1]:")
            with open_client(url) as client:
                client.send("six")
                assert client.recv(timeout=DEADLINE) == "six"


class TestStop:
    def test_sigterm_with_tls(self, authority: trustme.CA, certificate: tuple[Path, Path, Path]) -> None:
        context = trust(authority)
        chain, key, _ = certificate
        with Process(
            "-m", "geventws", "echo", "--port", "0", "--certfile", chain, "--keyfile", key
        ) as process:
            url = process.url()
            assert url.startswith("wss://127.0.0.1:")
            with (
                open_client(url, ssl=context) as client,
                open_client(url, "/broadcast", ssl=context) as other,
            ):
                for each in client, other:
                    each.send("secret")
                    assert each.recv(timeout=DEADLINE) == "secret"
                process.signal(signal.SIGTERM)
                assert receive_close(client)[0] == 1001
                assert receive_close(other)[0] == 1001
            assert process.wait() == 0
            assert process.errors() == ""

    def test_sigint_with_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "echo.sock"
        with Process("-m", "geventws", "echo", "--unix", f"/{path}") as process:
            url = process.url()
            assert url == f"ws+unix:{path}"
            with open_client(url) as client:
                client.send("near")
                assert client.recv(timeout=DEADLINE) == "near"
                process.signal(signal.SIGINT)
                assert receive_close(client)[0] == 1001
            assert process.wait() == 0
            assert process.errors() == ""
        assert not path.exists()

    @pytest.mark.parametrize("name", ["s.sock", "a b:c?d#e%41.sock", b"\xff\xc3\xa9.sock"])
    def test_the_announced_uri_of_a_unix_socket_can_be_connected_to(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | bytes
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with Process("-m", "geventws", "echo", "--unix", os.fsdecode(name)) as process:
            url = process.url()
            monkeypatch.chdir("/")
            with geventws.connect(url, open_timeout=DEADLINE) as ws:
                ws.send("taken")
                assert ws.receive(timeout=DEADLINE) == "taken"
            assert process.stop() == 0
            assert process.errors() == ""

    def test_certificate_and_key_in_one_file_on_a_unix_socket(
        self, authority: trustme.CA, certificate: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        context = trust(authority)
        arguments = ("--unix", tmp_path / "tls.sock", "--certfile", certificate[2])
        with Process("-m", "geventws", "echo", *arguments) as process:
            # There is no URI for it.
            assert process.url() == f"'{tmp_path}/tls.sock' with TLS"
            with open_client(f"wss+unix:{tmp_path}/tls.sock", ssl=context) as client:
                client.send("x")
                assert client.recv(timeout=DEADLINE) == "x"
            assert process.stop() == 0

    def test_stale_unix_socket_is_replaced_and_a_live_one_is_not(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "echo.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with Process("-m", "geventws", "echo", "--unix", path) as process:
            url = process.url()
            assert main(["echo", "--unix", str(path)]) == 1
            assert (
                capsys.readouterr().err
                == f"geventws: cannot listen on {path}: another server is listening there\n"
            )
            with open_client(url) as client:
                client.send("alive")
                assert client.recv(timeout=DEADLINE) == "alive"
            # A file that another server put in its place is not this one's to remove.
            path.unlink()
            path.write_text("another's")
            assert process.stop() == 0
        assert path.read_text() == "another's"

    @pytest.mark.parametrize(
        "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,) * 40]
    )
    def test_more_than_one_signal(self, numbers: tuple[signal.Signals, ...]) -> None:
        for _ in range(3):
            with Process("-m", "geventws", "echo", "--port", "0") as process:
                process.url()
                for number in numbers:
                    process.signal(number)
                # Until the process is gone, so that some come while the interpreter finishes.
                while process.is_running():
                    process.signal(numbers[0])
                assert process.wait() == 0
                assert process.errors() == ""

    def test_standard_output_that_nobody_reads_is_no_reason_to_stop(self, tmp_path: Path) -> None:
        path = tmp_path / "echo.sock"
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "geventws", "echo", "--unix", str(path)]
        process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        try:
            while True:  # pytest-timeout is the deadline
                try:
                    with open_client(f"ws+unix:{path}") as client:
                        client.send("unheard")
                        assert client.recv(timeout=DEADLINE) == "unheard"
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    assert process.poll() is None
                    gevent.sleep(0.01)
            process.terminate()
            assert process.communicate(timeout=DEADLINE)[1] == ""
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()


class TestErrors:
    """Each is one line on standard error, with a status that is not 0."""

    def refused(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        assert main(["echo", *arguments]) != 0
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        return captured.err.strip()

    def test_address_that_cannot_be_listened_on(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            for host, problem in (
                ("127.0.0.1", "Address already in use\n"),
                ("192.0.2.1", "Cannot assign requested address\n"),  # RFC 5737: nobody's, for documentation
                ("a..b", ""),
            ):
                command = [sys.executable, "-m", "geventws", "echo", "--host", host, "--port", port]
                done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
                assert done.returncode == 1
                assert done.stdout == ""
                assert done.stderr.startswith(f"geventws: cannot listen on {host}:{port}: {problem}")
                assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("port", ["-1", "65536", "http", "", "1e3", "٣", "1_0"])
    def test_port_out_of_range(self, capsys: pytest.CaptureFixture[str], port: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["echo", f"--port={port}"])
        assert caught.value.code == 2
        assert capsys.readouterr().err == (
            f"geventws echo: argument --port: a port is a number from 0 to 65535, not {port!r} "
            "(see geventws echo --help)\n"
        )

    @pytest.mark.parametrize("option", ["--max-message-size", "--max-fragments"])
    @pytest.mark.parametrize("value", [str(2**60), "9" * 23, "9" * 5000])
    def test_limit_that_is_too_large(
        self, capsys: pytest.CaptureFixture[str], option: str, value: str
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["echo", f"{option}={value}"])
        assert caught.value.code == 2
        assert capsys.readouterr().err == (
            f"geventws echo: argument {option}: a limit is less than 1152921504606846976, or none to lift it "
            "(see geventws echo --help)\n"
        )

    @pytest.mark.parametrize("option", ["--max-message-size", "--max-fragments"])
    @pytest.mark.parametrize("value", ["0", "-1", "None", "1.5"])
    def test_limit_that_is_none(self, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["echo", f"{option}={value}"])
        assert caught.value.code == 2
        assert (
            f"argument {option}: a limit is a positive number or none, not {value!r} ("
            in capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        "arguments", [[], ["ecko"], ["echo", "more"], ["echo", "--no"], ["echo", "--max", "1"]]
    )
    def test_wrong_command_line(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("geventws")
        assert error.count("\n") == 1

    def test_certificate_that_does_not_exist(
        self, capsys: pytest.CaptureFixture[str], certificate: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        missing = str(tmp_path / "missing.pem")
        error = f"geventws: cannot read {missing}: No such file or directory"
        assert self.refused(capsys, "--certfile", missing) == error
        assert self.refused(capsys, "--certfile", str(certificate[0]), "--keyfile", missing) == error

    def test_certificate_that_is_none(
        self, capsys: pytest.CaptureFixture[str], certificate: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        chain, key, _ = map(str, certificate)
        empty = tmp_path / "empty.pem"
        empty.write_text("")
        error = self.refused(capsys, "--certfile", str(empty), "--keyfile", key)
        assert error.startswith(f"geventws: cannot use {empty} and {key} as certificate and key: ")
        error = self.refused(capsys, "--certfile", chain, "--keyfile", str(empty))
        assert error.startswith(f"geventws: cannot use {chain} and {empty} as certificate and key: ")
        error = self.refused(capsys, "--certfile", chain)
        assert error.startswith(f"geventws: cannot use {chain} (with the key in it) as certificate and key: ")

    def test_key_of_another_certificate(
        self,
        capsys: pytest.CaptureFixture[str],
        authority: trustme.CA,
        certificate: tuple[Path, Path, Path],
        tmp_path: Path,
    ) -> None:
        other = tmp_path / "other.pem"
        authority.issue_cert("other.example").private_key_pem.write_to_path(other)
        error = self.refused(capsys, "--certfile", str(certificate[0]), "--keyfile", str(other))
        assert error == (
            f"geventws: cannot use {certificate[0]} and {other} as certificate and key: "
            "the key is not that of the certificate"
        )

    def test_key_without_certificate(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.refused(capsys, "--keyfile", "key.pem") == "geventws: --keyfile needs --certfile"

    @pytest.mark.parametrize("more", [("--port", "0"), ("--host", "127.0.0.1")])
    def test_unix_socket_and_address(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, more: tuple[str, str]
    ) -> None:
        error = self.refused(capsys, "--unix", str(tmp_path / "x.sock"), *more)
        assert error == "geventws: --unix takes the place of --host and --port; give one or the other"

    def test_file_that_is_no_socket_stays(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "precious"
        path.write_text("data")
        error = self.refused(capsys, "--unix", str(path))
        assert error == f"geventws: cannot listen on {path}: it exists and is not a socket"
        assert path.read_text() == "data"
        link = tmp_path / "link"
        link.symlink_to(path)
        error = self.refused(capsys, "--unix", str(link))
        assert error == f"geventws: cannot listen on {link}: it exists and is not a socket"
        assert link.is_symlink()

    def test_socket_of_a_live_server_that_is_busy_stays(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "busy.sock"
        clients = []
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen(0)
            # It accepts none of these, so that another one would have to wait.
            for _ in range(3):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect_ex(str(path))
                clients.append(client)
            error = self.refused(capsys, "--unix", str(path))
            assert error == f"geventws: cannot listen on {path}: another server is listening there"
            assert stat.S_ISSOCK(path.lstat().st_mode)
            for client in clients:
                client.close()

    def test_unix_path_that_cannot_be(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        path = tmp_path / "no" / "x.sock"
        error = self.refused(capsys, "--unix", str(path))
        assert error == f"geventws: cannot listen on {path}: No such file or directory"
        path = tmp_path / ("x" * 120)
        error = self.refused(capsys, "--unix", str(path))
        assert error == f"geventws: cannot listen on {path}: AF_UNIX path too long"
