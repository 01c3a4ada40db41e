"""What the suite's verdicts mean: which cases run, what was expected, how they are counted and told.

Pure functions over plain data; starting processes is conformance.py's work. A verdict is the pair
(behavior, behaviorClose) that the suite gives a case: what the server answered, and how the
connection was closed.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

Verdict = tuple[str, str]

OK: Verdict = ("OK", "OK")
INFORMATIONAL: Verdict = ("INFORMATIONAL", "INFORMATIONAL")
FAILED: Verdict = ("FAILED", "FAILED")
MISSING: Verdict = ("MISSING", "MISSING")
NEVER_OPENED = "The WebSocket opening handshake was never completed!"

# The groups about compression take nine tenths of a whole run's time.
SLOW_GROUPS = ("12", "13")
# These groups are run a part at a time, so that a stall costs little.
SPLIT_GROUPS = ("9", "12", "13")

WHY_INFORMATIONAL = {
    "7.1.6": "A large message, a small one, a close frame and a ping arrive together. RFC 6455 leaves open"
    " how much of the echo is written before the closing handshake takes over.",
    "7.13.1": "A close frame with the code 5000, outside every range that RFC 6455 section 7.4.2 defines.",
    "7.13.2": "A close frame with the code 65535, likewise.",
}


@dataclasses.dataclass
class Outcome:
    """What one hosting mode did."""

    mode: str
    version: str = ""
    expected: dict[str, Verdict] = dataclasses.field(default_factory=dict)
    # The suite's record of each case; where a case was run again, of its last run.
    results: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    # Every verdict of the cases that were run again, the first one first.
    reruns: dict[str, list[Verdict]] = dataclasses.field(default_factory=dict)
    # What went wrong beside the cases: the server's exit status, a traceback, a time limit.
    faults: list[str] = dataclasses.field(default_factory=list)
    skipped: str = ""

    def verdict(self, case: str) -> Verdict:
        result = self.results.get(case)
        if not result:
            return MISSING
        # Some cases are INFORMATIONAL to the suite even when nobody answers.
        if result["resultClose"] == NEVER_OPENED:
            return FAILED
        return (result["behavior"], result["behaviorClose"])

    def differences(self) -> list[str]:
        """Return the cases whose verdict is not the expected one, missing and extra ones included."""
        cases = self.expected.keys() | self.results.keys()
        return sorted((c for c in cases if self.verdict(c) != self.expected.get(c)), key=case_key)

    def passed(self) -> int:
        return len(self.expected.keys() | self.results.keys()) - len(self.differences())

    def failed(self) -> int:
        return len(self.differences()) + len(self.faults)


def case_key(case: str) -> tuple[int, ...]:
    """Return a key that sorts 2.10 behind 2.9."""
    return tuple(int(part) for part in case.split("."))


def select(expected: dict[str, Verdict], which: str) -> dict[str, Verdict]:
    """Return the expected verdicts of the `quick`, the `full` or a comma separated list of cases.

    Raises:
        ValueError: a case or group in the list does not exist.
    """
    if which == "full":
        return dict(expected)
    if which == "quick":
        return {c: v for c, v in expected.items() if not slow([c])}
    chosen = {}
    for name in which.split(","):
        found = {c: v for c, v in expected.items() if c == name or c.startswith(name + ".")}
        if not found:
            raise ValueError(f"no case or group {name!r}: give quick, full, or numbers such as 2.9,7,12.1")
        chosen.update(found)
    return {c: expected[c] for c in sorted(chosen, key=case_key)}


def slow(cases: Iterable[str]) -> bool:
    """Return whether compression is among the cases."""
    return any(case.split(".")[0] in SLOW_GROUPS for case in cases)


def chunks(cases: Iterable[str]) -> dict[str, list[str]]:
    """Split cases into groups that are run at a time, by the group's number."""
    split: dict[str, list[str]] = {}
    for case in sorted(cases, key=case_key):
        group, part = case.split(".")[:2]
        split.setdefault(f"{group}.{part}" if group in SPLIT_GROUPS else group, []).append(case)
    return split


def catalogue_errors(expected: dict[str, Verdict], listed: list[str]) -> list[str]:
    """Compare the committed table with the cases that the suite says it has."""
    errors = [f"case {c} is expected, but the suite has none" for c in expected.keys() - set(listed)]
    errors += [f"case {c} of the suite is not in the expected table" for c in set(listed) - expected.keys()]
    return sorted(errors)


def slash(verdict: Verdict | None) -> str:
    return "/".join(verdict) if verdict else "no such case"


def difference_line(outcome: Outcome, case: str) -> str:
    """Return one line about a case that is not as expected, with the suite's words for it."""
    got, wanted = outcome.verdict(case), outcome.expected.get(case)
    line = f"case {case}: {slash(got)}, expected {slash(wanted)} (behavior/closing)"
    result = outcome.results.get(case)
    if result and wanted:
        texts = (result["result"], result["resultClose"])
        told = [text for text, a, b in zip(texts, got, wanted, strict=True) if a != b and a != "NON-STRICT"]
        line += "".join(f": {text.rstrip('.')}" for text in dict.fromkeys(told))
    return line


def difference_lines(outcome: Outcome) -> list[str]:
    """Return a line for each case that is not as expected, and one for all that did not run."""
    differences = outcome.differences()
    missing = [c for c in differences if outcome.verdict(c) == MISSING]
    lines = [difference_line(outcome, c) for c in differences if c not in missing]
    if missing:
        lines.append(f"{len(missing)} cases are missing: {', '.join(missing)}")
    return lines


def rerun_line(outcome: Outcome, case: str) -> str:
    first, *again = outcome.reruns[case]
    return f"case {case}: {slash(first)} at first; run again alone: {', '.join(map(slash, again))}"


def count(verdicts: list[Verdict]) -> dict[str, int]:
    """Count the cases that are OK or INFORMATIONAL in both verdicts, and all others."""
    counted = collections.Counter(verdicts)
    ok, informational = counted.pop(OK, 0), counted.pop(INFORMATIONAL, 0)
    return {"OK": ok, "INFORMATIONAL": informational, "other": sum(counted.values())}


def closing_line(outcome: Outcome) -> str:
    """Return the line that ends a mode's output."""
    counted = count([outcome.verdict(c) for c in outcome.expected.keys() | outcome.results.keys()])
    told = ", ".join(f"{n} {name}" for name, n in counted.items())
    return f"autobahn {outcome.mode}: {sum(counted.values())} cases, {told}"


def table(header: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def describe(verdicts: list[Verdict], side: int) -> str:
    """Return the counts of one side of the verdicts: 0 for behavior, 1 for closing."""
    counted = collections.Counter(verdict[side] for verdict in verdicts)
    return ", ".join(f"{n} {name}" for name, n in counted.most_common()) or "none"


def close_code(outcome: Outcome, case: str) -> str:
    result = outcome.results.get(case)
    if not result:
        return "did not run"
    code = result["remoteCloseCode"]
    return f"close frame with {code}" if code else "no close code"


def summary(
    outcomes: list[Outcome], *, versions: dict[str, str], groups: dict[str, str], command: str
) -> str:
    """Return the run on one page of Markdown.

    Args:
        outcomes: one for each mode that was asked for.
        versions: names and versions of what took part.
        groups: the suite's titles of its groups.
        command: what to type for the same run.
    """
    ran = [o for o in outcomes if not o.skipped]
    lines = [
        "# Conformance",
        "",
        "The official Autobahn|Testsuite's fuzzing client against geventws' echo server, and its fuzzing server",
        "against geventws' client (modes client-*); compression on and the limits on messages off. In the modes",
        "flask-* the server is a Flask app with Sock, on gevent.pywsgi and on gunicorn -k gevent. The run writes",
        "this page; changes belong in tests/autobahn/.",
        "",
        f"Made by `{command}` with " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".",
        "",
    ]
    rows: list[list[Any]] = []
    for o in ran:
        got = [o.verdict(c) for c in o.expected.keys() | o.results.keys()]
        rows.append([o.mode, len(got), describe(got, 0), describe(got, 1), o.failed()])
    lines += table(["mode", "cases", "behavior", "closing", "not as expected"], rows)
    lines += ["", *(f"* {o.mode}: {o.version}" for o in ran)]
    lines += [f"* {o.mode} was skipped: {o.skipped}" for o in outcomes if o.skipped]

    lines += ["", "## By group", "", "Cases that are OK in behavior and closing, of those that ran.", ""]
    rows = []
    for number, title in groups.items():
        row = []
        for o in ran:
            cases = [c for c in o.expected.keys() | o.results.keys() if c.split(".")[0] == number]
            counted = count([o.verdict(c) for c in cases])
            cell = f"{counted['OK']} of {len(cases)}" if cases else "not run"
            cell += f", {counted['INFORMATIONAL']} informational" if counted["INFORMATIONAL"] else ""
            row.append(cell + (f", **{counted['other']} other**" if counted["other"] else ""))
        if any(cell != "not run" for cell in row):
            rows.append([f"{number} {title}", *row])
    lines += table(["group", *(o.mode for o in ran)], rows)

    lines += ["", "## The informational cases", ""]
    lines += [
        "For these the suite sets INFORMATIONAL, behavior and closing, whatever a server does. This run"
    ]
    lines += ["does ask that the opening handshake was completed.", ""]
    rows = [[c, why, *(close_code(o, c) for o in ran)] for c, why in WHY_INFORMATIONAL.items()]
    lines += table(["case", "what it sends", *(o.mode for o in ran)], rows)

    lines += ["", "## Case 2.9", ""]
    lines += [
        "An unsolicited pong, then a ping: the ping is answered, the pong is not, and the suite's close frame"
    ]
    lines += ["is answered before TCP ends.", ""]
    for o in ran:
        behavior, closing = o.verdict("2.9")
        lines.append(f"* {o.mode}: behavior {behavior}, closing {closing}, {close_code(o, '2.9')}")

    lines += ["", "## Differences", ""]
    told = [f"* {o.mode}: {line}" for o in ran for line in difference_lines(o)]
    told += [f"* {o.mode}: {fault}" for o in ran for fault in o.faults]
    lines += told or ["None."]
    if any(o.reruns for o in ran):
        lines += ["", "Run again alone, because a case's timers are as short as half a second:", ""]
        lines += [f"* {o.mode}: {rerun_line(o, c)}" for o in ran for c in sorted(o.reruns, key=case_key)]
    return "\n".join(lines) + "\n"
