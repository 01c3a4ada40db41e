"""The report: text for the terminal, Markdown, and a chart for each row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .chart import bars
from .results import Cell, Verdict, judge, summarize
from .rows import ROWS, Goal, Row

__all__ = [
    "cells_of",
    "goals_table",
    "markdown",
    "markdown_table",
    "row_table",
    "text_table",
    "verdicts",
    "write",
    "write_chart",
]

Table = list[list[str]]

#: Cells that stand at the right of their column.
_NUMBERS = re.compile(r"[\d,.]+( to [\d,.]+)?( KiB|%)?")


def cells_of(results: dict[str, Any], row: Row) -> dict[str, Cell]:
    """The cells of a row, those that were measured first, in the order of the table."""
    samples = results["rows"].get(row.name, {})
    cells = {name: summarize(name, found) for name, found in samples.items()}
    for name, reason in results["absent"].get(row.name, {}).items():
        cells[name] = Cell(server=name, rounds=0, error=f"absent: {reason}")
    return cells


def measured_rows(results: dict[str, Any]) -> list[Row]:
    """The rows that a run has something of."""
    return [row for row in ROWS if row.name in results["rows"] or row.name in results["absent"]]


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """What became of the goals of the rows that were measured."""
    found = []
    for row in measured_rows(results):
        cells = cells_of(results, row)
        found += [judge(row, goal, cells) for goal in row.goals]
    return found


def _number(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def row_table(row: Row, cells: Iterable[Cell]) -> Table:
    """A row as a table, its first line the head; the best first, errors last."""
    if row.metric == "memory":
        head = ["server", "KiB a connection", "MiB in all"]
        body = [[_number(cell.connection, ".1f"), _number(cell.rss, ".0f")] for cell in _ranked(row, cells)]
    else:
        head = [
            "server", f"{row.unit}/s", "slowest to fastest round", "CPU µs each", "p50 µs", "p99 µs",
            "p99.9 µs", "least/most", "RSS MiB", "generator", "bytes on the wire",
        ]  # fmt: skip
        body = [
            [
                _number(cell.rate),
                f"{_number(cell.rate_low)} to {_number(cell.rate_high)}",
                _number(cell.cpu, ".2f"),
                _number(cell.p50),
                _number(cell.p99),
                _number(cell.p999),
                _number(cell.fairness, ".2f"),
                _number(cell.rss, ".0f"),
                _number(cell.generator, ".0%"),
                _number(cell.wire),
            ]
            for cell in _ranked(row, cells)
        ]
    lines = []
    if row.metric == "rate" and not row.load.compress:
        head, body = head[:-1], [line[:-1] for line in body]
    for cell, line in zip(_ranked(row, cells), body, strict=True):
        if cell.error is not None:
            line = [f"ERROR: {cell.error}"] + [""] * (len(head) - 2)
        lines.append([cell.server, *line])
    return [head, *lines]


def _ranked(row: Row, cells: Iterable[Cell]) -> list[Cell]:
    def key(cell: Cell) -> tuple[bool, float]:
        value = (cell.connection or 0.0) if row.metric == "memory" else -(cell.rate or 0.0)
        return cell.error is not None, value

    return sorted(cells, key=key)


def _wanted(goal: Goal) -> str:
    if goal.what == "memory":
        return f"at most {goal.value:g} KiB"
    if goal.what == "fairness":
        return f"least/most at least {goal.value:g}"
    against = goal.against[0] if len(goal.against) == 1 else "the best Python server"
    return f"{goal.value:.2f} x {against}"


def goals_table(found: Sequence[Verdict]) -> Table:
    """The goals as a table, its first line the head."""
    lines = [["row", "server", "goal", "rate", "CPU", "against", "result", "note"]]
    for verdict in found:
        goal, rivals = verdict.goal, verdict.rival or ""
        if verdict.rival_cpu != verdict.rival:
            rivals += f"; CPU: {verdict.rival_cpu}"
        reached = _number(verdict.reached, ".2f")
        if goal.what == "memory" and reached:
            reached = f"{verdict.reached:.1f} KiB"
        lines.append(
            [
                verdict.row.name,
                goal.subject,
                _wanted(goal),
                reached,
                _number(verdict.reached_cpu, ".2f"),
                rivals,
                verdict.status,
                verdict.note,
            ]
        )
    return lines


def text_table(table: Table) -> str:
    """A table for the terminal; columns that are empty throughout are left out."""
    used = [i for i in range(len(table[0])) if any(line[i] for line in table[1:])] or [0]
    # An error runs over the cells behind it, and widens no column.
    widths = {
        i: max(len(line[i]) for line in table if not line[i].startswith("ERROR")) for i in used
    }  # fmt: skip
    lines = []
    for line in table:
        cells = []
        for i in used:
            right = i > 0 and _NUMBERS.fullmatch(line[i])
            cells.append(line[i].rjust(widths[i]) if right else line[i].ljust(widths[i]))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(table: Table) -> str:
    """A table for Markdown."""

    def escape(cell: str) -> str:
        return cell.replace("|", "\\|").replace("\n", " ")

    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(escape, line)) + " |" for line in lines)


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    settings = results["settings"]
    how = (
        f"Written by `benchmarks/run.py` on {results['date']}. Each row: all its servers up at once on CPU "
        f"{settings['server_cpu']}, the load generator on CPU {settings['client_cpu']}, servers taken in "
        f"turn, medians of {settings['rounds']} rounds of {settings['seconds']:g} s behind a warm-up of "
        f"{settings['warmup']:g} s. (Memory: each server alone, started anew for each round.) Ratios hold "
        "from machine to machine, the figures themselves do not. CPU is the server's time for each "
        "message, handshake or delivery; on a machine that others use it is the steadier figure, and "
        "where the load generator has no CPU left (column `generator`) it is the one that counts."
    )
    parts = ["# Measured side by side", how]
    if settings["quick"]:
        parts.append(
            "**A quick run: few rows, rounds, servers and idle connections. Not for comparing releases.**"
        )
    foreign = [
        cell.foreign
        for row in measured_rows(results)
        for cell in cells_of(results, row).values()
        if cell.foreign is not None
    ]
    if foreign:
        parts.append(
            f"Other work had {sum(foreign) / len(foreign):.0%} of these CPUs on average, "
            f"{max(foreign):.0%} at the most (median of a cell)."
        )
    parts += ["## Goals", markdown_table(goals_table(verdicts(results)))]
    for row in measured_rows(results):
        cells = cells_of(results, row)
        parts += [f"## {row.title}", f"![{row.title}]({row.name}.svg)"]
        parts.append(markdown_table(row_table(row, cells.values())))
    parts += ["## Machine", markdown_table([["", ""], *([k, v] for k, v in results["machine"].items())])]
    versions = [["server", "versions"], *([k, v] for k, v in results["versions"].items())]
    parts += ["## Versions", markdown_table(versions)]
    return "\n\n".join(parts) + "\n"


def write(results: dict[str, Any], directory: Path) -> list[Path]:
    """Write `results.md` and the charts; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / "results.md"]
    written[0].write_text(markdown(results), encoding="utf-8")
    written += [write_chart(row, cells_of(results, row), directory) for row in measured_rows(results)]
    return written


def write_chart(row: Row, cells: Mapping[str, Cell], directory: Path) -> Path:
    """Write the chart of a row; return its path."""
    ranked = [cell for cell in _ranked(row, cells.values()) if cell.error is None]
    if row.metric == "memory":
        values = [(cell.server, cell.connection or 0.0, None, None) for cell in ranked]
        unit, form = "KiB a connection, less is better", ",.1f"
    else:
        values = [(cell.server, cell.rate or 0.0, cell.rate_low, cell.rate_high) for cell in ranked]
        unit, form = f"{row.unit} a second, more is better", ",.0f"
    path = directory / f"{row.name}.svg"
    path.write_text(bars(row.title, unit, values, form=form), encoding="utf-8")
    return path
