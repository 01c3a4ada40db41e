"""What docs/deployment.md shows is what runs: the programs, the service, and that no block is left out."""

from __future__ import annotations

import configparser
import contextlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import gevent.socket
import pytest
from processes import Process
from proxies.documented import DOCUMENT, FILES, FRAGMENTS, adapt, front
from proxies.programs import DEADLINE, free_ports

from geventws import ConnectionClosed, connect

pytestmark = pytest.mark.deadline(90)

PROGRAM = "/srv/chat/chat.py"
UNIX = "/srv/chat/listen_unix.py"
SERVICE = "/etc/systemd/system/chat.service"


def test_every_block_is_run_here() -> None:
    assert set(FILES) == {
        PROGRAM, UNIX, SERVICE, "/etc/nginx/conf.d/chat.conf", "/etc/haproxy/haproxy.cfg",
    }  # fmt: skip
    # The others: the two lines that change for a Unix socket, and gunicorn's command.
    assert [language for language, _ in FRAGMENTS] == ["nginx", "haproxy", "sh"]


def program(directory: Path, *, unix: Path | None = None) -> tuple[Path, str]:
    """Write the program for a port that is free, or a Unix socket; returns where it listens, too."""
    if unix is None:
        where = f"127.0.0.1:{free_ports(1)[0]}"
        text = adapt(PROGRAM, {"8888": where.rpartition(":")[2]})
    else:
        where = str(unix)
        (directory / "listen_unix.py").write_text(FILES[UNIX], encoding="utf-8")
        lines = FILES[PROGRAM].splitlines(keepends=True)
        begin = lines.index("listener = gevent.socket.socket()\n")
        end = lines.index("listener.listen(4096)\n")
        lines[begin : end + 1] = [
            "from listen_unix import listen_unix\n",
            f"listener = listen_unix({where!r})\n",
        ]
        text = "".join(lines)
    path = directory / "chat.py"
    path.write_text(text, encoding="utf-8")
    return path, where


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_program_behind_a_proxy(proxy: str, unix: bool, certificate: Any, tmp_path: Path) -> None:
    """It greets with the client's address, whatever the client says that this is."""
    with contextlib.ExitStack() as stack:
        # A path short enough for a socket.
        socket_path = None
        if unix:
            folder = Path(f"/tmp/geventws-chat-{free_ports(1)[0]}")
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder)
            socket_path = folder / "chat.sock"
        path, where = program(tmp_path, unix=socket_path)
        # The second time over the socket that a killed one has left.
        for last in (False, True):
            with (
                Process(path) as server,
                front(proxy, where, tmp_path, certificate.path) as ports,
            ):
                assert server.read_line() == "ready"
                ws = connect(
                    f"wss://127.0.0.1:{ports['tls']}",
                    ssl_context=certificate.context,
                    source_address=("127.0.0.2", 0),
                    headers={"X-Forwarded-For": "6.6.6.6"},
                    open_timeout=DEADLINE,
                )
                with contextlib.suppress(ConnectionClosed), ws:
                    assert ws.receive(timeout=DEADLINE) == "hello 127.0.0.2"
                    ws.send("x")
                    assert ws.receive(timeout=DEADLINE) == "x"
                    if last:
                        # As systemd ends it.
                        server.signal(signal.SIGTERM)
                        with pytest.raises(ConnectionClosed) as caught:
                            ws.receive(timeout=DEADLINE)
                        assert caught.value.code == 1001
                        assert ws.wait_closed(DEADLINE)
                        assert server.wait() == 0


def test_program_believes_nobody_else(tmp_path: Path) -> None:
    path, where = program(tmp_path)
    # Anybody's connection, and not one of the proxies'.
    path.write_text(path.read_text().replace('{"127.0.0.1", ', '{"192.0.2.1", '), encoding="utf-8")
    with Process(path) as server:
        assert server.read_line() == "ready"
        with connect(f"ws://{where}", headers={"X-Forwarded-For": "6.6.6.6"}, open_timeout=DEADLINE) as ws:
            assert ws.receive(timeout=DEADLINE) == "hello 127.0.0.1"


def test_several_processes_share_a_port(tmp_path: Path) -> None:
    """A client may come to any of them, and each of them gets some."""
    path, where = program(tmp_path)
    # One that cannot be told from the other would prove nothing.
    text = path.read_text().replace('f"hello {client_address(ws)}"', 'f"{os.getpid()}"')
    path.write_text(f"import os\n{text}", encoding="utf-8")
    with Process(path) as first, Process(path) as second:
        assert first.read_line() == second.read_line() == "ready"
        processes = set()
        for _ in range(200):
            with connect(f"ws://{where}", open_timeout=DEADLINE) as ws:
                processes.add(ws.receive(timeout=DEADLINE))
            if len(processes) == 2:
                break
        assert len(processes) == 2
        # One stops, the other goes on.
        assert first.stop() == 0
        for _ in range(20):
            with connect(f"ws://{where}", open_timeout=DEADLINE) as ws:
                assert ws.receive(timeout=DEADLINE) in processes


def test_unix_socket_is_for_the_group_only(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(FILES[UNIX], UNIX, "exec"), names)
    path = f"/tmp/geventws-unix-{free_ports(1)[0]}.sock"
    try:
        for _ in range(2):
            listener = names["listen_unix"](path)
            assert isinstance(listener, gevent.socket.socket)
            assert Path(path).stat().st_mode & 0o777 == 0o660
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
            listener.close()
    finally:
        Path(path).unlink()


def test_service() -> None:
    """It starts the program that stands above, and its limits fit the server's options."""
    service = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#")
    service.optionxform = str  # type: ignore[assignment]
    service.read_string(FILES[SERVICE])
    assert service.sections() == ["Unit", "Service", "Install"]
    settings = service["Service"]
    assert shlex.split(settings["ExecStart"])[1:] == [PROGRAM]
    (limit,) = re.findall(r"max_connections=([\d_]+)", FILES[PROGRAM])
    assert int(settings["LimitNOFILE"]) > int(limit)
    # The default of `stop_timeout`, as the document says.
    assert int(settings["TimeoutStopSec"]) > 10


def test_systemd_finds_no_fault_with_the_service(tmp_path: Path) -> None:
    """Where it is installed; the interpreter is one of this machine."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze (Debian: apt-get install systemd)")
    unit = tmp_path / "chat.service"
    unit.write_text(
        adapt(SERVICE, {"/srv/chat/venv/bin/python": "/bin/true"}),
        encoding="ascii",
    )
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, timeout=DEADLINE)
    about = [line for line in (done.stdout + done.stderr).splitlines() if "chat.service" in line]
    assert about == []


def test_gunicorns_command() -> None:
    """gunicorn takes these options, and has the worker."""
    gunicorn = pytest.importorskip("gunicorn.config")
    ((_, command),) = [fragment for fragment in FRAGMENTS if fragment[0] == "sh"]
    words = shlex.split(command)
    assert words[0] == "gunicorn"
    config = gunicorn.Config()
    parsed = vars(config.parser().parse_args(words[1:]))
    for key, value in parsed.items():
        if value is not None and key in config.settings:
            config.set(key, value)
    assert config.worker_class.__name__ == "GeventWebSocketWorker"
    assert (config.workers, config.worker_connections, config.graceful_timeout) == (4, 10000, 15)


def test_numbers_of_others_that_the_document_names() -> None:
    gunicorn = pytest.importorskip("gunicorn.config")
    assert gunicorn.Config().worker_connections == 1000
    text = DOCUMENT.read_text(encoding="utf-8")
    assert "1000 where nothing is said" in text
    nginx = Path("/etc/nginx/nginx.conf")
    if nginx.exists():
        assert f"worker_connections {768};" in nginx.read_text()
    assert "(768 in Debian's" in text


def test_fragments_for_unix_sockets_stand_in_the_files() -> None:
    """What they replace is there."""
    nginx, haproxy = (text.strip() for language, text in FRAGMENTS if language in ("nginx", "haproxy"))
    assert nginx.startswith("server unix:")
    assert FILES["/etc/nginx/conf.d/chat.conf"].count("server 127.0.0.1:8888;") == 1
    name = haproxy.rpartition(" ")[0]
    assert f"{name} 127.0.0.1:8888" in FILES["/etc/haproxy/haproxy.cfg"]


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_proxy_finds_no_fault(proxy: str, certificate: Any, tmp_path: Path) -> None:
    """No warning from its own check of the file."""
    with front(proxy, "127.0.0.1:1", tmp_path, certificate.path):
        pass
    name, option = ("nginx.conf", "-t") if proxy == "nginx" else ("haproxy.cfg", "-c")
    arguments = ["-p", str(tmp_path), "-e", "stderr", "-c"] if proxy == "nginx" else ["-f"]
    found = shutil.which(proxy, path="/usr/sbin:/usr/bin:/sbin")
    assert found is not None
    done = subprocess.run(
        [found, option, *arguments, str(tmp_path / name)], capture_output=True, text=True, timeout=DEADLINE
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert not re.search(r"warn|alert|deprecat", output, re.IGNORECASE), output
