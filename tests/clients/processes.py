"""The processes around the tests: servers, and Node where there is one.

All of them end with the run, whatever ends it: see `Child`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from typing import Any

import trustme
from clients.adapters import DEADLINE, Address

__all__ = ["NodeMissing", "Servers", "install_node_modules", "start_node"]

HERE = pathlib.Path(__file__).parent


def load_children() -> types.ModuleType:
    """Load the processes of the conformance run; their directory has the name of a package on PyPI."""
    spec = importlib.util.spec_from_file_location(
        "clients.children", HERE.parent / "autobahn" / "children.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


children = load_children()


def start(kind: Any, *arguments: Any, **options: Any) -> Any:
    """Start a process."""
    with warnings.catch_warnings():
        # From 3.12 on: the thread of pytest-timeout is one, and `Child` runs a function after fork. That
        # function calls prctl and takes no lock.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return kind(*arguments, **options)


class Servers:
    """The servers under test, each started when it is first asked for.

    Args:
        logs: a directory for their output, kept by pytest.

    Attributes:
        version: what `geventws --version` prints where they run.
    """

    def __init__(self, logs: pathlib.Path) -> None:
        self.logs = logs
        self.running: dict[str, Any] = {}
        self.addresses: dict[str, Address] = {}
        self.stack = contextlib.ExitStack()
        # pytest's directories may be too deep for a Unix socket, which takes about a hundred bytes.
        self.directory = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        self.ca = str(self.directory / "ca.pem")
        self.certfile = str(self.directory / "server.pem")
        self.keyfile = str(self.directory / "server.key")
        authority.cert_pem.write_to_path(self.ca)
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(self.keyfile)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.certfile, append=True)

        self.version = subprocess.run(
            [sys.executable, "-m", "geventws", "--version"],
            cwd=self.directory,
            capture_output=True,
            check=True,
            text=True,
            timeout=DEADLINE,
        ).stdout.strip()

    def launch(self, name: str, command: list[str], ready: str) -> str:
        """Start a server and wait until it listens; returns what it printed of where."""
        server = start(
            children.Server,
            [sys.executable, *command],
            self.logs / f"{name}.log",
            ready=ready,
            # Away from the checkout: the package under test is the one that is installed.
            cwd=self.directory,
            env=dict(os.environ),
        )
        self.running[name] = self.stack.enter_context(server)
        return server.address()

    def echo(self, transport: str, compression: bool) -> Address:
        """Return where `geventws echo` listens on this transport."""
        name = f"echo-{transport}{'-compression' * compression}"
        if name not in self.addresses:
            command = ["-m", "geventws", "echo", "--max-message-size", "none", "--max-fragments", "none"]
            path = str(self.directory / f"{name}.sock")
            if compression:
                command.append("--compression")
            if transport == "unix":
                command += ["--unix", path]
            else:
                command += ["--port", "0"]
            if transport == "tls":
                command += ["--certfile", self.certfile, "--keyfile", self.keyfile]
            printed = self.launch(name, command, r"^listening on (?P<address>\S+)$")
            place = path if transport == "unix" else printed.rpartition("/")[2]
            self.addresses[name] = Address(transport, place, self.ca)
        return self.addresses[name]

    def dialogue(self, transport: str, compression: str = "default") -> Address:
        """Return where dialogue.py listens on this transport with this compression."""
        if "dialogue" not in self.running:
            path = str(self.directory / "dialogue.sock")
            command = [str(HERE / "dialogue.py"), "--unix", path]
            command += ["--certfile", self.certfile, "--keyfile", self.keyfile]
            found = json.loads(self.launch("dialogue", command, r"^listening on (?P<address>\{.*\})$"))
            for key, place in found.items():
                self.addresses[key] = Address(key.partition(" ")[0], place, self.ca)
        return self.addresses[f"{transport} {compression}"]

    def end_of(self, query: str) -> tuple[int, str]:
        """Wait until dialogue.py reports how the connection with this query ended: code and reason."""
        server = self.running["dialogue"]
        pattern = re.compile(rf'^ended (\{{"query": "{re.escape(query)}", .*\}})$', re.MULTILINE)
        found = server.wait_until(lambda: pattern.search(server.text()), children.Deadline(DEADLINE))
        end = json.loads(found[1])
        return end["code"], end["reason"]

    def check_running(self) -> list[str]:
        """Return what is wrong with the servers so far."""
        faults = []
        for name, server in self.running.items():
            if server.process.poll() is not None:
                faults.append(f"{name}: {server.end()}")
            faults += [f"{name}: {fault}" for fault in server.tracebacks()]
        return faults

    def stop(self) -> list[str]:
        """Stop all with SIGTERM; return what was wrong with them."""
        with self.stack:
            return [f"{name}: {fault}" for name, server in self.running.items() for fault in server.stop()]


class NodeMissing(Exception):
    """There is no Node, or `ws` cannot be had."""


def install_node_modules(directory: pathlib.Path) -> str:
    """Have `ws` in node_modules in this directory, as package-lock.json pins it; returns the versions.

    Raises:
        NodeMissing: why it cannot be there.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeMissing(f"no {program} on PATH (Debian: apt-get install nodejs npm)")
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]["ws"]
    modules = directory / "node_modules"
    if installed_version(modules) != wanted:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, directory / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            raise NodeMissing(f"{' '.join(command)} took more than 180 s") from None
        if done.returncode or installed_version(modules) != wanted:
            raise NodeMissing(f"{' '.join(command)} failed with {done.returncode}: {done.stderr[-500:]}")
    os.environ["NODE_PATH"] = str(modules)
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=30)
    return f"Node {node.stdout.strip()}, ws {wanted}"


def installed_version(modules: pathlib.Path) -> str | None:
    """Return the version of `ws` that is installed."""
    try:
        return str(json.loads((modules / "ws" / "package.json").read_text())["version"])
    except (OSError, ValueError):
        return None


def start_node(directory: pathlib.Path) -> tuple[Any, socket.socket]:
    """Start a client in Node; returns the process and the socket that drives it."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        path = f"{place}/control.sock"
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(DEADLINE)
        process = start(
            children.Child, ["node", str(HERE / "node.cjs"), path], directory / "node.log", cwd=directory
        )
        try:
            control, _ = listener.accept()
        except BaseException:
            process.__exit__()
            raise
    return process, control
