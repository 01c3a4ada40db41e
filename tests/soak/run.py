"""Mixed traffic for a long time, with a verdict: `tox -e soak` runs this.

    python tests/soak/run.py                     four minutes
    python tests/soak/run.py --minutes 60
    python tests/soak/run.py --hours 24

A server process that breaks off what it sends all the time, and clients in this process: text and binary,
compressed or not, in fragments, over TLS, Pings both ways, broadcasts, kills, resets, half-closes,
reconnects.
Every message carries its sender, its number and a checksum: none may be lost, doubled, reordered or
changed. From time to time everything but the residents, which stay from beginning to end, has to leave; then
it is counted what the server has in use. After the warm-up, no more than before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gevent  # noqa: E402
import gevent.ssl  # noqa: E402
import gevent.subprocess  # noqa: E402
import trustme  # noqa: E402
from judge import judge_memory  # noqa: E402
from traffic import Resident, Traffic  # noqa: E402

import geventws  # noqa: E402

PLANTS = ("lose", "double", "reorder", "corrupt", "leak")

#: The part of the time that is warm-up.
_WARM_UP = 0.25
_ROUND_SECONDS = 60.0
_LEAST_ROUNDS = 8
#: From here on a round has time for a client that is to be found dead.
_PATIENT_ROUND_SECONDS = 20.0
#: Seconds for all clients to end their lives when a rest comes.
_LEAVE_SECONDS = 180.0


class Child:
    """The server process."""

    def __init__(self, directory: Path, plant: str, seed: int) -> None:
        self._errors = directory / "errors"
        parent = str(Path(geventws.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [parent, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-W", "always", str(HERE / "serve.py"), "--seed", str(seed)]
        command += ["--certificate", str(directory / "certificate"), "--key", str(directory / "key")]
        with self._errors.open("wb") as errors:
            self._popen = gevent.subprocess.Popen(
                [*command, "--plant", plant],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
            )
        self.ports: list[int] = self._answer()

    def _answer(self) -> Any:
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit(f"!! FAILED: the server has ended: {self.errors()}")
        return json.loads(line)

    def settle(self, residents: int) -> dict[str, Any]:
        """Wait until only so many are connected; return what is in use."""
        self._popen.stdin.write(b"%d\n" % residents)
        self._popen.stdin.flush()
        found: dict[str, Any] = self._answer()
        return found

    def errors(self) -> str:
        """What stands on its standard error."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """End it; returns its exit status."""
        self._popen.stdin.close()
        try:
            return int(self._popen.wait(30))
        except gevent.subprocess.TimeoutExpired:
            self._popen.kill()
            return int(self._popen.wait())
        finally:
            self._popen.stdout.close()


@contextlib.contextmanager
def certificates() -> Iterator[tuple[Path, Any]]:
    """A directory with the server's certificate, and the clients' context."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        issued.private_key_pem.write_to_path(directory / "key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(directory / "certificate", append=True)
        yield directory, context


def make_residents(traffic: Traffic, context: Any, count: int) -> list[Resident]:
    """Connections that stay: plain and TLS, compressed and not."""
    return [
        Resident(
            traffic,
            tls=context if number % 4 >= 2 else None,
            offer=b"permessage-deflate" if number % 2 else b"",
        )
        for number in range(count)
    ]


def play(traffic: Traffic, residents: list[Resident], churning: int, seconds: float) -> None:
    """One round: all talk for so long, and end what they do."""
    traffic.running = True
    lives = [gevent.spawn(traffic.churn) for _ in range(churning)]
    lives += [gevent.spawn(resident.talk) for resident in residents]
    gevent.joinall(lives, seconds)
    traffic.running = False
    left = len(lives) - len(gevent.joinall(lives, _LEAVE_SECONDS))
    if left:
        traffic.note(f"{left} clients did not come to an end in {_LEAVE_SECONDS:g} s")
        gevent.killall(lives)
    for life in lives:
        if life.exception is not None:
            traffic.note(f"a client failed: {life.exception!r}")
    for resident in residents:
        resident.rest()


def judge(traffic: Traffic, rests: list[dict[str, Any]], warm_up: int, errors: str, status: int) -> list[str]:
    """All that is wrong with a soak; empty where nothing is."""
    last = rests[-1]
    found = [*traffic.violations]
    if traffic.found > len(traffic.violations):
        found.append(f"{traffic.found} violations in all")
    found += judge_memory(rests[warm_up:])
    if last["problems"]:
        found.append(f"{last['problems']} warnings and errors in the server's log: {last['first_problems']}")
    if errors.strip():
        found.append(f"on the server's standard error: {errors[:2000]}")
    if status:
        found.append(f"the server ended with status {status}")
    if not last["interrupted"]:
        found.append("no send was broken off: the soak has not tried what it is for")
    return found


def run(arguments: argparse.Namespace) -> list[str]:
    """Soak, print a line for each rest, and return what is wrong."""
    seconds = arguments.hours * 3600 if arguments.hours else arguments.minutes * 60
    round_seconds = min(_ROUND_SECONDS, seconds / _LEAST_ROUNDS)
    rests: list[dict[str, Any]] = []
    with certificates() as (directory, context):
        child = Child(directory, arguments.plant, arguments.seed)
        status = None
        try:
            traffic = Traffic(
                child.ports,
                context,
                arguments.seed,
                patience=arguments.patience,
                patient=round_seconds > _PATIENT_ROUND_SECONDS,
            )
            residents = make_residents(traffic, context, arguments.residents)
            start = time.monotonic()
            print(
                f"{'':>8}{'messages':>11}{'MiB':>9}{'connections':>13}{'broken off':>12}{'resident KiB':>14}"
                f"{'malloc KiB':>12}{'blocks':>9}{'fds':>5}{'CPU s':>8}",
                flush=True,
            )
            while time.monotonic() - start < seconds or len(rests) < _LEAST_ROUNDS:
                play(traffic, residents, arguments.clients, round_seconds)
                rest = child.settle(len(residents))
                rest["time"] = time.monotonic() - start
                rests.append(rest)
                note = "  warm-up" if _is_warm_up(rest, len(rests), seconds) else ""
                print(
                    f"{rest['time'] / 60:>6.1f} m{traffic.messages:>11}{traffic.bytes / 1048576:>9.0f}"
                    f"{rest['stats']['opened']:>13}{rest['interrupted']:>12}{rest['resident'] / 1024:>14.0f}"
                    f"{rest['allocated'] / 1024:>12.1f}{rest['blocks']:>9}{rest['descriptors']:>5}"
                    f"{rest['cpu']:>8.1f}{note}",
                    flush=True,
                )
                if rest["connections"] > len(residents):
                    traffic.note(f"{rest['connections'] - len(residents)} connections did not end")
            for resident in residents:
                resident.end()
        finally:
            status = child.stop()
        print("\nhow connections ended:")
        for life, count in sorted(traffic.ended.items()):
            print(f"    {life:32}{count:>9}")
        print("counted by the server:")
        for name, count in sorted(rests[-1]["stats"].items()):
            print(f"    {name:32}{count:>9}")
        warm_up = sum(_is_warm_up(rest, number, seconds) for number, rest in enumerate(rests, 1))
        return judge(traffic, rests, warm_up, child.errors(), status)


def _is_warm_up(rest: dict[str, Any], number: int, seconds: float) -> bool:
    """Whether the rest that is the first, second, ... (`number`) comes too early to be judged."""
    return number <= 2 or bool(rest["time"] < seconds * _WARM_UP)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4.0, help="default %(default)s")
    parser.add_argument("--hours", type=float, default=0.0, help="instead of --minutes")
    parser.add_argument("--clients", type=int, default=60, help="that come and go; default %(default)s")
    parser.add_argument("--residents", type=int, default=40, help="that stay; default %(default)s")
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        help="seconds that a client waits for anything; a message that is not back then is lost",
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--plant", choices=PLANTS, default="", help="let the server do this, to see it found")
    arguments = parser.parse_args(argv)
    print(
        f"geventws {geventws.__version__} ({geventws.IMPLEMENTATION}), Python {sys.version.split()[0]}, ",
        end="",
    )
    print(f"seed {arguments.seed}\n", flush=True)
    found = run(arguments)
    print()
    for what in found:
        print(f"!! FAILED: {what}")
    if not found:
        print("PASSED: nothing lost, doubled, reordered or changed; no growth after the warm-up")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
