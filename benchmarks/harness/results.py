"""From samples to figures: medians over rounds, and what became of the goals.

A sample is what the load generator printed for one server in one round; a cell is what all rounds
of one server in one row come to.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .rows import Goal, Row

__all__ = ["Cell", "Verdict", "judge", "summarize"]

Sample = Mapping[str, Any]

#: Above this much of a CPU the load generator is the limit, and the server could do more.
_GENERATOR_FULL = 0.95

_RATES = ("messages_per_s", "deliveries_per_s", "handshakes_per_s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Medians over the rounds of one server in one row; None where the row does not have them.

    Attributes:
        server: its name.
        rounds: how many there were.
        error: what went wrong; all else is None then.
        rate: of messages, deliveries or handshakes, each second.
        rate_low, rate_high: the rounds that were slowest and fastest.
        cpu: microseconds of the server's CPU time for each.
        p50, p99, p999: latency in microseconds.
        fairness: messages of the connection served least over those of the one served most.
        rss: resident memory of the server, MiB.
        connection: memory of a connection, KiB.
        generator: how much of a CPU the load generator used.
        foreign: how much of the CPUs others used meanwhile.
        wire: bytes that a reply took on the wire, frame headers included; in a row about compression.
    """

    server: str
    rounds: int
    error: str | None = None
    rate: float | None = None
    rate_low: float | None = None
    rate_high: float | None = None
    cpu: float | None = None
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    fairness: float | None = None
    rss: float | None = None
    connection: float | None = None
    generator: float | None = None
    foreign: float | None = None
    wire: float | None = None

    @property
    def generator_is_full(self) -> bool:
        """Whether the load generator was the limit: the CPU time still tells, the rate does not."""
        return self.generator is not None and self.generator >= _GENERATOR_FULL


def summarize(server: str, samples: Sequence[Sample]) -> Cell:
    """Make one cell of the samples of all rounds.

    An error in any round makes the cell an error: a server that lost messages was not measured.
    """
    count = len(samples)
    if not samples:
        return Cell(server=server, rounds=0, error="not measured")
    for sample in samples:
        if sample["errors"]:
            return Cell(server=server, rounds=count, error=sample.get("first_error") or "an error")
    found: dict[str, float | None] = {
        "rss": _median(
            samples, lambda s: max(s["server_rss_kib"]["open"], s["server_rss_kib"]["end"]) / 1024
        ),
        "generator": _median(samples, lambda s: s["client_cpu_share"]),
        "foreign": _median(samples, lambda s: s["foreign_cpu_share"]),
    }
    if samples[0]["mode"] == "idle":
        found["connection"] = _median(samples, lambda s: s["rss_bytes_per_conn"] / 1024)
        return Cell(server=server, rounds=count, **found)
    name = next(name for name in _RATES if name in samples[0])
    rates = [sample[name] for sample in samples]
    found |= {
        "rate": statistics.median(rates),
        "rate_low": min(rates),
        "rate_high": max(rates),
        "cpu": _median(samples, lambda s: s["server_cpu_s"] / s["count"] * 1e6),
    }
    if "lat_us" in samples[0]:
        found |= {
            "p50": _median(samples, lambda s: s["lat_us"]["p50"]),
            "p99": _median(samples, lambda s: s["lat_us"]["p99"]),
            "p999": _median(samples, lambda s: s["lat_us"]["p99.9"]),
        }
    if samples[0].get("deflate_negotiated"):
        found["wire"] = _median(samples, lambda s: s["wire_in_mb_per_s"] * 1e6 / s[name])
    if samples[0]["mode"] == "echo":
        found["fairness"] = _median(samples, lambda s: s["per_conn"]["min"] / max(1, s["per_conn"]["max"]))
    return Cell(server=server, rounds=count, **found)


def _median(samples: Sequence[Sample], value: Any) -> float:
    return statistics.median(value(sample) for sample in samples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a goal.

    Attributes:
        row, goal: which.
        status: `met`; `missed`; for a goal of speed also `rate only` or `CPU only`, where one of
            the two was reached; `not measured`.
        reached: the ratio of rates; or the memory or fairness itself.
        reached_cpu: the ratio of CPU time for each message; speed only.
        rival, rival_cpu: the servers that these ratios are against.
        note: what a reader must know beside it.
    """

    row: Row
    goal: Goal
    status: str
    reached: float | None = None
    reached_cpu: float | None = None
    rival: str | None = None
    rival_cpu: str | None = None
    note: str = ""


def judge(row: Row, goal: Goal, cells: Mapping[str, Cell]) -> Verdict:
    """Tell whether a goal was reached.

    Args:
        row: the row.
        goal: one of its goals.
        cells: the row's cells, by server.
    """
    subject = cells.get(goal.subject)
    if subject is None or subject.error is not None:
        why = "not measured" if subject is None else subject.error or ""
        return Verdict(row=row, goal=goal, status="not measured", note=f"{goal.subject}: {why}")
    if goal.what == "speed":
        return _judge_speed(row, goal, subject, cells)
    value = subject.connection if goal.what == "memory" else subject.fairness
    if value is None:
        raise AssertionError(f"row {row.name} does not measure {goal.what}")
    reached = value <= goal.value if goal.what == "memory" else value >= goal.value
    return Verdict(row=row, goal=goal, status="met" if reached else "missed", reached=value)


def _judge_speed(row: Row, goal: Goal, subject: Cell, cells: Mapping[str, Cell]) -> Verdict:
    rivals = [cells[name] for name in goal.against if name in cells and cells[name].error is None]
    if not rivals:
        return Verdict(
            row=row, goal=goal, status="not measured", note=f"nothing of {', '.join(goal.against)}"
        )
    fastest = max(rivals, key=lambda cell: cell.rate or 0.0)
    thriftiest = min(rivals, key=lambda cell: cell.cpu or 0.0)
    ratio = (subject.rate or 0.0) / (fastest.rate or 1.0)
    # The other way round, so that more is better in both.
    ratio_cpu = (thriftiest.cpu or 0.0) / (subject.cpu or float("inf"))
    status = {
        (True, True): "met",
        (True, False): "rate only",
        (False, True): "CPU only",
        (False, False): "missed",
    }[ratio >= goal.value, ratio_cpu >= goal.value]
    notes = []
    if len(rivals) < len(goal.against):
        notes.append(f"{len(rivals)} of {len(goal.against)} rivals measured")
    if subject.generator_is_full:
        notes.append("the load generator is the limit of the rate")
    return Verdict(
        row=row,
        goal=goal,
        status=status,
        reached=ratio,
        reached_cpu=ratio_cpu,
        rival=fastest.server,
        rival_cpu=thriftiest.server,
        note="; ".join(notes),
    )
