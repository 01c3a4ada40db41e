"""The table of docs/attacks.md: a row for each attack, a column for each server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from target import MIB

__all__ = ["render", "write"]

BEGIN = "<!-- begin: python tests/attacks/run.py --all --write docs/attacks.md -->"
END = "<!-- end -->"


def cell(row: Any) -> str:
    """What one server did with one attack; bold where it is not below a bar."""
    outcome = row.outcome
    if outcome is None:
        return "-"
    text = f"{outcome.answer}, {outcome.memory / MIB:+.1f} MiB, {outcome.cpu:.2f} s"
    if outcome.p99:
        text += f", {outcome.p99:.0f} ms"
    return f"**{text}**" if row.wrong else text


def render(results: dict[str, list[Any]], versions: dict[str, dict[str, str]], machine: str) -> str:
    """The Markdown between the marks."""
    names = [*results]
    lines = [
        "Each cell: the answer, what the resident set grew by at its peak, the CPU time that it took,",
        "and the p99 of a well-behaved client beside it. **Bold**: not below a bar. `-`: not for this one.",
        "Taken on",
        f"{machine}.",
        "",
        "| attack | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    rows = zip(*(results[name] for name in names), strict=True)
    for row in rows:
        first = row[0].attack
        lines.append(f"| {first.name} | {first.what} | " + " | ".join(cell(one) for one in row) + " |")
    held = []
    for name in names:
        tried = [row for row in results[name] if row.outcome is not None]
        held.append(f"{sum(not row.wrong for row in tried)} of {len(tried)}")
    lines.append("| | below all bars | " + " | ".join(held) + " |")
    lines += ["", "What is not below a bar:", ""]
    for name in names:
        for row in results[name]:
            lines += [
                f"- {name}, {row.attack.name}: {what.replace('|', chr(92) + '|')}" for what in row.wrong
            ]
    lines += ["", "Versions:", ""]
    for name in names:
        found = ", ".join(f"{package} {version}" for package, version in versions[name].items())
        lines.append(f"- {name}: {found}")
    return "\n".join(lines) + "\n"


def write(path: Path, results: dict[str, list[Any]], versions: dict[str, dict[str, str]]) -> None:
    """Put the table between the marks of a document.

    Raises:
        ValueError: if it has no marks.
    """
    from run import machine

    document = path.read_text(encoding="utf-8")
    before, mark, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path} has no marks for the table")
    table = render(results, versions, machine())
    path.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}", encoding="utf-8")
