"""Attack a server, and hold it to bars: `tox -e attacks` runs this against geventws.

    python tests/attacks/run.py                                  geventws; fails where it is not below a bar
    python tests/attacks/run.py --server flask-sock --attack T-FRAG1 --attack T-Z1
    python tests/attacks/run.py --address 127.0.0.1:8888 --pid 1234
    python tests/attacks/run.py --all --write docs/attacks.md    the table, of all servers

The attacks are named after the classes of advisories that they come from. Beside each a well-behaved client
sends a hundred messages a second and looks how long their echoes take. What is not geventws runs in an
environment of its own, made from requirements.txt at the first run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import gc
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "benchmarks")]

import attack_table  # noqa: E402
import frames  # noqa: E402, F401
import heads  # noqa: E402, F401
import many  # noqa: E402
from attack import ATTACKS, Attack, Outcome  # noqa: E402
from crowd import crowd  # noqa: E402
from harness import environment  # noqa: E402
from harness.processes import Absent  # noqa: E402
from target import KINDS, MIB, Kind, Target, Witness, started  # noqa: E402

#: Attempts that an attack has: other programs of the machine take CPU and memory too, and only ever add.
ATTEMPTS = 3
#: What the client beside costs is the median of so many pieces of this time: a server may still be starting.
_CALM_SECONDS = 1.5
_CALM_PIECES = 6


@dataclasses.dataclass(slots=True)
class Row:
    """An attack on a server, and what is not below its bars."""

    attack: Attack
    outcome: Outcome | None
    wrong: list[str]


def attempt(target: Target, attack: Attack, calm: float) -> Row:
    """Attack once, with a witness beside it."""
    if attack.needs == "tls":
        outcome = attack.run(target)
        return Row(attack, outcome, attack.judge(target, outcome))
    with Witness(target, 1, 100) as witness:
        witness.wait_served()
        outcome = attack.run(target)
        seen = witness.take()
    outcome.p99, outcome.calm, outcome.cut = seen["p99"], calm, seen["failures"]
    return Row(attack, outcome, attack.judge(target, outcome))


def calm_p99(target: Target) -> float:
    """What the witness sees where nobody attacks; and learn what it costs the server."""
    with Witness(target, 1, 100) as witness:
        witness.wait_served()
        rates = []
        for _ in range(_CALM_PIECES):
            cpu, start = target.cpu(), time.monotonic()
            time.sleep(_CALM_SECONDS / _CALM_PIECES)
            rates.append((target.cpu() - cpu) / (time.monotonic() - start))
        target.beside = statistics.median(rates)
        return float(witness.take()["p99"])


def attack_one(start: Any, attack: Attack, attempts: int) -> Row:
    """Attack a fresh server, some times if need be; the best attempt counts."""
    best: Row | None = None
    for _ in range(attempts):
        try:
            with start(tls=attack.needs == "tls") as target:
                calm = 0.0 if attack.needs == "tls" else calm_p99(target)
                row = attempt(target, attack, calm)
        except (OSError, EOFError, ValueError) as error:
            row = Row(attack, Outcome("failed"), [f"the server is gone: {type(error).__name__}: {error}"])
        gc.collect()
        if best is None or len(row.wrong) < len(best.wrong):
            best = row
        if not row.wrong:
            break
    assert best is not None
    return best


def describe(row: Row) -> str:
    """One line."""
    outcome = row.outcome
    if outcome is None:
        return f"{row.attack.name:9} {'-':>20}"
    line = (
        f"{row.attack.name:9} {outcome.answer:>20} {outcome.sent / MIB:>7.1f} {outcome.memory / MIB:>+7.1f}"
    )
    line += f" {outcome.cpu:>6.2f} {outcome.calm:>6.1f} {outcome.p99:>7.1f}  {row.attack.what}"
    return line + "".join(f"\n          !! {what}" for what in row.wrong)


def can(kind: Kind, attack: Attack) -> bool:
    """Whether a server has what an attack needs."""
    if attack.needs == "deflate":
        return kind.compresses
    return attack.needs != "broadcast" or kind.broadcasts


@contextlib.contextmanager
def certificate() -> Iterator[Path]:
    """A directory with `certificate` and `key`."""
    import trustme

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(directory / "key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(directory / "certificate", append=True)
        yield directory


def run(kind: Kind, start: Any, chosen: list[Attack], attempts: int) -> list[Row]:
    """Do the attacks, and print a line for each."""
    print(f"\n{kind.name}")
    print(f"{'':9} {'answer':>20} {'MiB':>7} {'memory':>7} {'CPU s':>6} {'calm':>6} {'p99 ms':>7}")
    rows = []
    for attack in chosen:
        if can(kind, attack):
            rows.append(attack_one(start, attack, attempts))
        else:
            rows.append(Row(attack, None, []))
        print(describe(rows[-1]), flush=True)
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", action="append", choices=[*KINDS], help="default: geventws")
    parser.add_argument("--all", action="store_true", help="all servers")
    parser.add_argument("--address", metavar="HOST:PORT", help="one that runs already; with --pid")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--limit", type=int, help="with --address: bytes of a message; default: none")
    parser.add_argument(
        "--attack", action="append", choices=[*ATTACKS], metavar="NAME", help=", ".join(ATTACKS)
    )
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="default %(default)s")
    parser.add_argument(
        "--many", action="store_true", help="thousands of connections, as docs/attacks.md tells"
    )
    parser.add_argument(
        "--crowd", action="store_true", help="500 clients beside 100 attackers, and nothing else"
    )
    parser.add_argument(
        "--write", type=Path, help="write the table of all that was run in --work, and README.md's"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".tox" / "attacks-work", help="for environments")
    arguments = parser.parse_args(argv)
    _raise_limits()
    if arguments.many:
        many.COUNTS.update({"half-open": 9900, "tls": 1000, "readers": 1000, "descriptors": 1000})
    chosen = [ATTACKS[name] for name in arguments.attack or ATTACKS]
    if arguments.address:
        return _attack_address(arguments, chosen)
    names = [*KINDS] if arguments.all else arguments.server or ["geventws"]
    interpreters = {"geventws": sys.executable}
    arguments.work.mkdir(parents=True, exist_ok=True)
    if names != ["geventws"]:
        peers = environment.make(arguments.work / "peers", print, HERE / "requirements.txt")
        interpreters |= {name: peers for name in names if name != "geventws"}
    results: dict[str, list[Row]] = {}
    status = 0
    with certificate() as directory:
        for name in names:
            kind = KINDS[name]

            def start(*, tls: bool = False, kind: Kind = kind) -> Any:
                return started(kind, interpreters[kind.name], tls=directory if tls else None)

            try:
                if arguments.crowd:
                    wrong = crowd(start, arguments.work)
                    status |= bool(wrong) and name == "geventws"
                    continue
                results[name] = run(kind, start, chosen, arguments.attempts)
            except Absent as error:
                print(f"!! {name} is absent: {error}")
                status |= name == "geventws"
                continue
            status |= name == "geventws" and any(row.wrong for row in results[name])
    failures = [(row.attack.name, what) for row in results.get("geventws", []) for what in row.wrong]
    for attack_name, what in failures:
        print(f"!! FAILED: geventws, {attack_name}: {what}")
    if "geventws" in results and not failures:
        print(f"\nPASSED: geventws is below every bar, {len(results['geventws'])} attacks")
    for name, rows in results.items():
        versions = environment.versions(interpreters[name], list(KINDS[name].packages))
        attack_table.save(arguments.work, name, rows, {**versions, "machine": machine()})
    if arguments.write is not None:
        attack_table.write(arguments.write, arguments.work)
        attack_table.write_short(ROOT / "README.md", arguments.write)
    return int(status)


def _attack_address(arguments: argparse.Namespace, chosen: list[Attack]) -> int:
    """Attack a server that somebody else has started."""
    host, _, port = arguments.address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or arguments.pid is None:
        sys.exit(
            "--address takes 127.0.0.1:PORT, and --pid the server's process: what it costs is read there"
        )
    kind = Kind(arguments.address, limit=arguments.limit)
    target = Target(kind, int(port), arguments.pid)

    @contextlib.contextmanager
    def start(*, tls: bool = False) -> Iterator[Target]:
        yield target

    rows = run(kind, start, [attack for attack in chosen if attack.needs not in ("tls", "broadcast")], 1)
    return int(any(row.wrong for row in rows))


def _raise_limits() -> None:
    """As many descriptors as the system allows; the servers inherit that."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def machine() -> str:
    """Where this was measured."""
    today = dt.date.today().isoformat()
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, {today}"


if __name__ == "__main__":
    sys.exit(main())
