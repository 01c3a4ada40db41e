"""The table of docs/attacks.md: a row for each attack, a column for each server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from attack import ATTACKS
from target import KINDS, MIB

__all__ = ["render", "save", "shorten", "write", "write_short"]

BEGIN = "<!-- begin: python tests/attacks/run.py --all --write docs/attacks.md -->"
END = "<!-- end -->"
#: In the README, whose rows are some of the table's.
BEGIN_SHORT = "<!-- begin: some rows of docs/attacks.md -->"
SHORT = (
    "T-LEN1e", "T-FRAG1", "T-FRAG3", "T-Z1", "T-MASK", "T-UTF8", "T-FAIR", "T-SM", "T-HS7", "T-ORI",
    "T-SLOW1", "T-TLS", "T-HB",
)  # fmt: skip


def save(directory: Path, name: str, rows: list[Any], versions: dict[str, str]) -> None:
    """Keep what one server did, for a table to be made later.

    Rows from before stay, if they are of the same day, machine and versions.
    """
    path = directory / f"attacks-{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"versions": None}
    found = {row["name"]: row for row in before["rows"]} if before["versions"] == versions else {}
    for row in rows:
        found[row.attack.name] = {
            "name": row.attack.name,
            "what": row.attack.what,
            "outcome": None if row.outcome is None else dataclasses.asdict(row.outcome),
            "wrong": row.wrong,
        }
    kept = [found[name] for name in ATTACKS if name in found]
    path.write_text(json.dumps({"rows": kept, "versions": versions}, indent=1), encoding="utf-8")


def cell(row: dict[str, Any]) -> str:
    """What one server did with one attack; bold where it is not below a bar."""
    outcome = row["outcome"]
    if outcome is None:
        return "-"
    text = f"{outcome['answer']}, {outcome['memory'] / MIB:+.1f} MiB, {outcome['cpu']:.2f} s"
    if outcome["p99"]:
        text += f", {outcome['p99']:.0f} ms"
    return f"**{text}**" if row["wrong"] else text


def render(results: dict[str, dict[str, Any]]) -> str:
    """The Markdown between the marks."""
    names = [*results]
    rows = {name: {row["name"]: row for row in results[name]["rows"]} for name in names}
    # One, unless servers had their turns on several days.
    machine = "; ".join(sorted({result["versions"].pop("machine") for result in results.values()}))
    lines = [
        "Each cell: the answer, what the resident set grew by at its peak, the CPU time that it took,",
        "and the p99 of a well-behaved client beside it. **Bold**: not below a bar. `-`: not for this one.",
        f"Taken on {machine}.",
        "",
        "| attack | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for row in results[names[0]]["rows"]:
        cells = [cell(rows[name][row["name"]]) if row["name"] in rows[name] else "" for name in names]
        lines.append(f"| {row['name']} | {row['what']} | " + " | ".join(cells) + " |")
    held = []
    for name in names:
        tried = [row for row in rows[name].values() if row["outcome"] is not None]
        held.append(f"{sum(not row['wrong'] for row in tried)} of {len(tried)}")
    lines.append("| | below all bars | " + " | ".join(held) + " |")
    lines += ["", "What is not below a bar:", ""]
    for name in names:
        for row in rows[name].values():
            lines += [f"- {name}, {row['name']}: {_plain(what)}" for what in row["wrong"]]
    lines += ["", "Versions:", ""]
    for name in names:
        found = ", ".join(f"{package} {version}" for package, version in results[name]["versions"].items())
        lines.append(f"- {name}: {found}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Without what Markdown would take for its own."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def write(path: Path, directory: Path) -> None:
    """Put the table between the marks of a document.

    Raises:
        ValueError: if it has no marks.
    """
    files = {name: directory / f"attacks-{name}.json" for name in KINDS}
    results = {
        name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()
    }
    _put(path, BEGIN, render(results))


def write_short(path: Path, document: Path) -> None:
    """Put some rows of the table of `document` between the marks of another document.

    Raises:
        ValueError: if one of them has no marks.
    """
    _put(path, BEGIN_SHORT, shorten(document.read_text(encoding="utf-8")))


def shorten(document: str) -> str:
    """Those rows, without the names of the attacks and the last figure of each cell."""
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in document.partition(BEGIN)[2].partition(END)[0].splitlines()
        if line.startswith("|")
    ]
    names, _, *rows = table
    lines = ["| " + " | ".join(["attack", *names[2:]]) + " |", "|---|" + "---|" * len(names[2:])]
    for row in rows:
        if row[0] in SHORT:
            lines.append("| " + " | ".join([row[1], *map(_shorten_cell, row[2:])]) + " |")
        elif row[1] == "below all bars":
            lines.append("| all of them: below every bar | " + " | ".join(row[2:]) + " |")
    return "\n".join(lines) + "\n"


def _shorten_cell(cell: str) -> str:
    bold = "**" if cell.startswith("**") else ""
    return bold + ", ".join(cell.strip("*").split(", ")[:3]) + bold


def _put(path: Path, begin: str, text: str) -> None:
    """Put text between the marks of a document."""
    document = path.read_text(encoding="utf-8")
    before, mark, rest = document.partition(begin)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path} has no marks for the table")
    path.write_text(f"{before}{begin}\n\n{text}\n{END}{after}", encoding="utf-8")
