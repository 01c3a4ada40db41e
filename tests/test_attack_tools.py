"""tests/attacks and tests/soak: what they hold a server to. A verdict that cannot fail is none."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent

# Their scripts import each other by bare names.
sys.path[:0] = [str(HERE / "attacks"), str(HERE / "soak")]

import attack  # noqa: E402
import attack_table  # noqa: E402
import judge  # noqa: E402
import target  # noqa: E402
import witness  # noqa: E402

del sys.path[:2]

MIB = 1 << 20


class TestSoak:
    def test_what_comes_back_in_order_is_right(self) -> None:
        outstanding = judge.Outstanding()
        messages = [judge.make_message(1, number, b"x") for number in range(3)]
        for message in messages:
            outstanding.sent(1, message)
        for message in messages:
            outstanding.came(1, message)
        assert outstanding.count == 3

    @pytest.mark.parametrize(
        ("came", "why"),
        [
            ((0, 0), "doubled: number 0"),
            ((1,), "lost or reordered: number 1 came, 0 was the next"),
            ((0, 2), "lost or reordered: number 2 came, 1 was the next"),
            ((0, 1, 2, 2), "doubled: number 2"),
        ],
    )
    def test_what_does_not(self, came: tuple[int, ...], why: str) -> None:
        outstanding = judge.Outstanding()
        messages = [judge.make_message(1, number, b"x") for number in range(3)]
        for message in messages:
            outstanding.sent(1, message)
        for number in came[:-1]:
            outstanding.came(1, messages[number])
        with pytest.raises(judge.Violation, match=why):
            outstanding.came(1, messages[came[-1]])

    def test_what_is_changed(self) -> None:
        outstanding = judge.Outstanding()
        message = judge.make_message(1, 0, b"body")
        outstanding.sent(1, message)
        with pytest.raises(judge.Violation, match="corrupted: number 0"):
            outstanding.came(1, message[:-1] + b"?")
        with pytest.raises(judge.Violation, match="with opcode 2"):
            outstanding.came(2, message)

    def test_senders_count_each_for_itself(self) -> None:
        senders = judge.Senders(from_start=False)
        for sender, number in ((1, 5), (2, 0), (1, 6), (2, 1)):
            senders.came(judge.make_message(sender, number, b""))
        with pytest.raises(judge.Violation, match="number 8 of sender 1, 7 was the next"):
            senders.came(judge.make_message(1, 8, b""))
        with pytest.raises(judge.Violation, match="number 1 of sender 3, 0 was the next"):
            judge.Senders(from_start=True).came(judge.make_message(3, 1, b""))

    def rests(self, growth: float = 0, **last: float) -> list[dict[str, float]]:
        rests = [
            {
                "time": 60.0 * number,
                "resident": 40e6 + growth * number,
                "allocated": 7e6,
                "blocks": 90_000,
                "descriptors": 48,
                "greenlets": 50,
            }
            for number in range(60)
        ]
        rests[-1].update(last)
        return rests

    def test_memory_that_stays(self) -> None:
        assert judge.judge_memory(self.rests()) == []
        assert judge.judge_memory(self.rests(growth=5000)) == []

    def test_memory_that_grows(self) -> None:
        (found,) = judge.judge_memory(self.rests(growth=40_000))
        assert found.startswith("resident: the fitted line rises by 2360000 in 3540 s")
        (found,) = judge.judge_memory(self.rests(descriptors=49))
        assert found == "descriptors: 1 more than at the first rest"


class TestBars:
    TARGET = target.Target(target.KINDS["geventws"], 1, 1)

    def judge(self, **facts: float) -> list[str]:
        tried = attack.Attack("T-X", "what it does", lambda _: attack.Outcome(""))
        return tried.judge(self.TARGET, attack.Outcome("1009", **facts))  # type: ignore[arg-type]

    def test_below_all(self) -> None:
        assert self.judge(sent=40 * MIB, memory=4 * MIB, cpu=3.9, p99=14.9, calm=5.0) == []

    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"memory": 5 * MIB}, "5.0 MiB of memory, 4.0 allowed"),
            ({"sent": 20 * MIB, "cpu": 2.1}, "2.10 s of CPU, 2.00 allowed"),
            ({"cpu": 0.6}, "0.60 s of CPU, 0.50 allowed"),
            ({"p99": 61.0, "calm": 20.0}, "the well-behaved client waited 61.0 ms (p99), 20.0 without"),
            ({"cut": 1}, "the well-behaved client was cut 1 times"),
        ],
    )
    def test_above_one(self, facts: dict[str, float], why: str) -> None:
        assert self.judge(**facts) == [why]

    def test_what_the_client_beside_costs_is_not_the_attack_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A server that spends 30 ms of CPU time a second on that client, and 0.2 s on the attack.
        clock = types.SimpleNamespace(now=100.0, attack=0.0)
        sleep = types.SimpleNamespace(sleep=lambda seconds: setattr(clock, "now", clock.now + seconds))
        monkeypatch.setattr(target, "gevent", sleep)
        monkeypatch.setattr(target, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
        monkeypatch.setattr(target.Target, "cpu", lambda self: clock.now * 0.03 + clock.attack)
        for name in ("resident", "peak", "forget_peak"):
            monkeypatch.setattr(target.Target, name, lambda self: 0)
        busy = target.Target(target.KINDS["websockets"], 1, 1, beside=0.03)
        with target.bill(busy) as cost:
            clock.now += 2.0
            clock.attack += 0.2
        assert cost.cpu == pytest.approx(0.2)
        # And it was calm at once, although it was never idle.
        assert clock.now < 103

    def test_what_comes_beside_an_attack_is_taken_apart(self) -> None:
        echo, ping = b"\x81\x03abc", b"\x89\x04ping"
        for data, pings, rest in (
            (echo, [], b""),
            (echo + ping, [b"ping"], b""),
            (ping + b"\x89\x00" + echo + ping[:1], [b"ping", b""], ping[:1]),
            (echo + ping[:3], [], ping[:3]),
        ):
            assert witness.take_frames(data) == (echo, pings, rest)
        assert witness.take_frames(echo[:4]) == (b"", [], echo[:4])
        for other in (b"\x81\x7e\x00\x80", b"\x81\x83abcd"):
            with pytest.raises(OSError, match="not an echo"):
                witness.take_frames(other)

    def test_table(self) -> None:
        def row(name: str, wrong: list[str]) -> dict[str, object]:
            outcome = {"answer": "1009", "memory": MIB, "cpu": 0.25, "p99": 7.0}
            return {"name": name, "what": "does it", "outcome": outcome, "wrong": wrong}

        text = attack_table.render(
            {
                "geventws": {"rows": [row("T-X", [])], "versions": {"machine": "two CPUs", "gevent": "1"}},
                "other": {"rows": [row("T-X", ["open"])], "versions": {"machine": "two CPUs", "it": "2"}},
            }
        )
        cell = "1009, +1.0 MiB, 0.25 s, 7 ms"
        assert f"| T-X | does it | {cell} | **{cell}** |" in text
        assert "| | below all bars | 1 of 1 | 0 of 1 |" in text
        assert "- other, T-X: open" in text

    def test_rows_that_are_taken_again_replace_those_of_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("T-A", "T-B", "T-C"):
            tried = attack.Attack(name, "does it", lambda _: attack.Outcome(""))
            monkeypatch.setitem(attack.ATTACKS, name, tried)

        def save(day: str, **answers: str) -> list[tuple[str, str]]:
            rows = [
                types.SimpleNamespace(
                    attack=attack.ATTACKS[f"T-{name}"], outcome=attack.Outcome(answer), wrong=[]
                )
                for name, answer in answers.items()
            ]
            attack_table.save(tmp_path, "geventws", rows, {"machine": day})
            kept = json.loads((tmp_path / "attacks-geventws.json").read_text())["rows"]
            return [(row["name"], row["outcome"]["answer"]) for row in kept]

        save("today", C="1009", A="1009")
        assert save("today", B="1002", C="1002") == [("T-A", "1009"), ("T-B", "1002"), ("T-C", "1002")]
        # What is written above the table holds for all its rows.
        assert save("tomorrow", A="1000") == [("T-A", "1000")]

    def test_the_readme_has_some_rows_of_the_document(self) -> None:
        short = attack_table.shorten((ROOT / "docs/attacks.md").read_text(encoding="utf-8"))
        lines = short.splitlines()
        # Two above, one with the sums below.
        assert len(lines) == len(attack_table.SHORT) + 3
        assert lines[0].startswith("| attack | geventws | gevent-websocket |")
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
        assert lines[2].count(" MiB, ") == lines[2].count("|") - 2 or " - " in lines[2]
        assert short in (ROOT / "README.md").read_text(encoding="utf-8")
