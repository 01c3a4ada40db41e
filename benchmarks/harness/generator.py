"""The load generator, loadgen/wsload.c: building it, running it once, reading what it says.

So are run and read the programs that measure clients.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .processes import pinned, raise_priority
from .rows import Load

__all__ = ["BuildError", "build", "explain", "measure", "problem_of", "run"]

SOURCE = Path(__file__).resolve().parents[1] / "loadgen" / "wsload.c"

#: Seconds for opening all connections and for priming them, each.
_OPEN_SECONDS = 40
_SPARE_SECONDS = 15

_TICKS = os.sysconf("SC_CLK_TCK")


class BuildError(Exception):
    """The load generator cannot be built; the message says what is missing."""


def build(directory: Path) -> Path:
    """Compile the load generator into `directory`, unless it is there and as new as its source.

    Raises:
        BuildError: if there is no C compiler, or no zlib header, or it does not compile.
    """
    program = directory / "wsload"
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BuildError(
            "the load generator needs a C compiler, and there is none (no CC, cc, gcc or clang); "
            "on Debian: apt-get install gcc libc6-dev zlib1g-dev"
        )
    directory.mkdir(parents=True, exist_ok=True)
    # Under another name first: an interrupted build leaves nothing that looks finished.
    half = directory / f"wsload.{os.getpid()}"
    line = [*compiler.split(), "-O2", "-Wall", "-Wextra", "-o", str(half), str(SOURCE), "-lz"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    except OSError as error:
        raise BuildError(f"the C compiler cannot be run: {error}") from error
    if done.returncode:
        raise BuildError(explain(done.stderr))
    half.replace(program)
    return program


def explain(stderr: str) -> str:
    """Say what a failed build lacks."""
    if "zlib.h" in stderr or "-lz" in stderr:
        return "the load generator needs zlib's header and library; on Debian: apt-get install zlib1g-dev"
    if "stdio.h" in stderr or "arpa/inet.h" in stderr:
        return "the C compiler has no C library headers; on Debian: apt-get install libc6-dev"
    return f"the load generator does not compile:\n{stderr.strip()}"


def measure(
    program: Path,
    load: Load,
    *,
    port: int,
    pids: list[int],
    seconds: float,
    warmup: float,
    cpu: int | None,
    watched: set[int],
    priority: bool,
) -> dict[str, Any]:
    """Run the load generator once against a server.

    Args:
        program: what `build` returned.
        load: what it does.
        port: of the server.
        pids: the server's processes, for CPU and memory.
        seconds: measured time.
        warmup: seconds before that.
        cpu: to run on; None for any.
        watched: the CPUs of server and generator, to see what else used them.
        priority: put it before other sessions of the machine.

    Returns:
        What it printed, with `foreign_cpu_share`: how much of the watched CPUs others had meanwhile.
        With `errors` above 0 the rest means nothing, and `first_error` says why.
    """
    line = [str(program), *load.arguments(), "--port", str(port), "--connect-timeout", str(_OPEN_SECONDS)]
    line += ["--duration", str(seconds), "--warmup", str(warmup), "--server-pid", ",".join(map(str, pids))]
    limit = 2 * _OPEN_SECONDS + seconds + warmup + _SPARE_SECONDS
    sample = run(line, limit=limit, pids=pids, cpu=cpu, watched=watched, priority=priority)
    if sample["errors"] and "mode" not in sample:
        return sample
    problem = problem_of(sample, load)
    if problem is not None and not sample["errors"]:
        sample["errors"], sample["first_error"] = 1, problem
    return sample


def run(
    line: list[str],
    *,
    limit: float,
    pids: list[int],
    cpu: int | None,
    watched: set[int],
    priority: bool,
    name: str = "the load generator",
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a program that prints one line of JSON, with `errors` in it.

    Args:
        line: its command line.
        limit: seconds until it is killed.
        pids: the processes at the other side.
        cpu, watched, priority: as for `measure`.
        name: what messages call it.
        environment: variables for it, beside ours.

    Returns:
        As `measure`.
    """
    busy, ours, start = _busy(watched), _cpu_seconds(pids) + _children_seconds(), time.monotonic()
    with pinned(cpu):
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    if priority:
        raise_priority(process.pid)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"errors": 1, "first_error": f"{name} did not end within {limit:g} s"}
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    elapsed = time.monotonic() - start
    try:
        sample: dict[str, Any] = json.loads(out)
    except ValueError:
        last = (err.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return {"errors": 1, "first_error": f"{name} printed no result: {last}"}
    foreign = (_busy(watched) - busy) - (_cpu_seconds(pids) + _children_seconds() - ours)
    sample["foreign_cpu_share"] = round(max(0.0, foreign / elapsed / max(1, len(watched))), 3)
    return sample


def problem_of(sample: dict[str, Any], load: Load) -> str | None:
    """Say what makes a sample worthless, or None.

    A server that declines compression, or answers without it, would win a row it did not run.
    """
    if sample["errors"]:
        return f"{sample['errors']} errors, the first: {sample['first_error'] or 'not told'}"
    if load.compress and sample["deflate_negotiated"] < sample["connections"]:
        agreed, wanted = sample["deflate_negotiated"], sample["connections"]
        return f"permessage-deflate was agreed on {agreed} of {wanted} connections"
    if load.compress and load.mode == "echo" and sample["compressed_echoes"] < 0.99 * sample["count"]:
        return f"only {sample['compressed_echoes']} of {sample['count']} echoes were compressed"
    if load.mode == "idle":
        if sample["open"] < sample["connections"]:
            return f"{sample['open']} of {sample['connections']} connections were open at the end"
    elif not sample["count"]:
        return "nothing was counted"
    return None


def _busy(cpus: set[int]) -> float:
    """Seconds that these CPUs were not idle since the machine started."""
    total = 0.0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            # proc(5): user, nice, system, idle, iowait, irq, softirq, steal, ...
            values = [int(field) for field in fields[:8]]
            total += (sum(values) - values[3] - values[4]) / _TICKS
    return total


def _cpu_seconds(pids: list[int]) -> float:
    """CPU seconds that processes have used."""
    total = 0.0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _children_seconds() -> float:
    """CPU seconds of this process's children that ended: of the load generator."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
