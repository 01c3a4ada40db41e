"""benchmarks/: the statistics, the goals, the tables and the command line; nothing is measured here."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import geventws

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

# Its scripts import each other as `harness`; no other name of it is on the path.
sys.path.append(str(BENCHMARKS))

from harness import (  # noqa: E402
    chart,
    clients,
    environment,
    generator,
    processes,
    report,
    results,
    rows,
    servers,
)

sys.path.remove(str(BENCHMARKS))


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run = load_script("run")
instructions = load_script("instructions")

SMALL = rows.choose(["small"], quick=False)[0]
WINDOW = rows.choose(["window"], quick=False)[0]
MEMORY = rows.choose(["memory"], quick=False)[0]


def sample(rate=1000.0, cpu=10.0, **changes):
    """What the load generator prints for one second of ping-pong; `cpu` in microseconds a message."""
    made = {
        "mode": "echo",
        "connections": 100,
        "open": 100,
        "count": int(rate),
        "messages_per_s": rate,
        "lat_us": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99.9": 4.0, "max": 5.0},
        "per_conn": {"min": 9, "p10": 9, "p50": 10, "p90": 10, "max": 10, "none": 0},
        "server_cpu_s": cpu * rate / 1e6,
        "server_rss_kib": {"before": 1024, "open": 2048, "end": 3072},
        "client_cpu_share": 0.5,
        "foreign_cpu_share": 0.1,
        "compressed_echoes": 0,
        "deflate_negotiated": 0,
        "errors": 0,
        "first_error": "",
    }
    return made | changes


def idle(kib):
    return sample(mode="idle", rss_bytes_per_conn=kib * 1024)


def cell(name="geventws", **changes):
    return results.summarize(name, [sample(**changes)])


def results_of(found, absent=None):
    return {
        "format": 1,
        "date": "2026-01-02 03:04 UTC",
        "machine": {"processor": "a | b"},
        "settings": {
            "rounds": 5,
            "seconds": 2.0,
            "warmup": 0.5,
            "quick": False,
            "server_cpu": 0,
            "client_cpu": 1,
        },
        "versions": {"geventws": "geventws 0.1.0"},
        "rows": found,
        "absent": absent or {},
    }


class TestSummarize:
    def test_medians_and_extremes_over_rounds(self):
        found = results.summarize("x", [sample(900.0, 9.0), sample(5000.0, 50.0), sample(1000.0, 8.0)])
        assert (found.rate, found.rate_low, found.rate_high) == (1000.0, 900.0, 5000.0)
        assert found.cpu == pytest.approx(9.0)
        assert (found.p50, found.p99, found.p999) == (1.0, 3.0, 4.0)
        assert found.fairness == pytest.approx(0.9)
        assert found.rss == 3.0
        assert (found.rounds, found.error) == (3, None)

    def test_error_in_one_round_is_the_result(self):
        bad = {"errors": 2, "first_error": "recv: Connection reset by peer"}
        found = results.summarize("x", [sample(), bad, sample()])
        assert found.error == "recv: Connection reset by peer"
        assert found.rate is None

    def test_no_round_is_an_error(self):
        assert results.summarize("x", []).error == "not measured"

    def test_idle_connections_have_memory_and_no_rate(self):
        found = results.summarize("x", [idle(9.0), idle(12.0), idle(10.0)])
        assert (found.connection, found.rate, found.cpu) == (10.0, None, None)

    def test_what_a_compressed_reply_took_on_the_wire(self):
        assert cell(deflate_negotiated=100, wire_in_mb_per_s=0.25).wire == pytest.approx(250.0)
        assert cell().wire is None

    def test_connection_that_got_nothing_is_unfair(self):
        per_conn = {"min": 0, "p10": 0, "p50": 32, "p90": 40, "max": 19271, "none": 7}
        assert cell(per_conn=per_conn).fairness == 0.0

    def test_other_modes_name_their_rate(self):
        made = sample(mode="handshake", handshakes_per_s=77.0)
        del made["messages_per_s"], made["per_conn"]
        found = results.summarize("x", [made])
        assert (found.rate, found.fairness) == (77.0, None)

    @pytest.mark.parametrize(("share", "full"), [(0.94, False), (0.95, True), (1.0, True)])
    def test_generator_without_cpu_left_is_told(self, share, full):
        assert cell(client_cpu_share=share).generator_is_full is full


class TestJudge:
    GOAL = rows.Goal(what="speed", value=1.5, against=("a", "b"))

    @pytest.mark.parametrize(
        ("rate", "cpu", "status"),
        [
            (3000.0, 5.0, "met"),
            (3000.0, 9.0, "rate only"),
            (2999.0, 5.0, "CPU only"),
            (2999.0, 9.0, "missed"),
        ],
    )
    def test_speed_needs_rate_and_cpu(self, rate, cpu, status):
        cells = {"geventws": cell(rate=rate, cpu=cpu), "a": cell("a", rate=2000.0, cpu=8.0)}
        cells["b"] = cell("b", rate=1000.0, cpu=20.0)
        assert results.judge(SMALL, self.GOAL, cells).status == status

    def test_speed_is_against_the_best_of_each(self):
        cells = {"geventws": cell(rate=4000.0, cpu=5.0), "a": cell("a", rate=2000.0, cpu=40.0)}
        cells["b"] = cell("b", rate=1000.0, cpu=10.0)
        found = results.judge(SMALL, self.GOAL, cells)
        assert (found.reached, found.rival) == (2.0, "a")
        assert (found.reached_cpu, found.rival_cpu) == (pytest.approx(2.0), "b")
        assert found.note == ""

    def test_rival_with_an_error_does_not_count_and_is_told(self):
        cells = {"geventws": cell(rate=4000.0, cpu=1.0), "a": cell("a")}
        cells["b"] = results.summarize("b", [sample(rate=9e9, errors=1, first_error="wrong bytes")])
        found = results.judge(SMALL, self.GOAL, cells)
        assert (found.status, found.rival, found.note) == ("met", "a", "1 of 2 rivals measured")

    def test_no_rival_is_not_a_success(self):
        assert results.judge(SMALL, self.GOAL, {"geventws": cell()}).status == "not measured"

    @pytest.mark.parametrize("cells", [{}, {"geventws": results.summarize("geventws", [])}])
    def test_no_subject_is_not_a_success(self, cells):
        found = results.judge(SMALL, self.GOAL, {**cells, "a": cell("a")})
        assert found.status == "not measured"
        assert "geventws" in found.note

    def test_full_generator_is_noted(self):
        cells = {"geventws": cell(client_cpu_share=1.0), "a": cell("a"), "b": cell("b")}
        assert "load generator" in results.judge(SMALL, self.GOAL, cells).note

    @pytest.mark.parametrize(("kib", "status"), [(10.0, "met"), (10.1, "missed")])
    def test_memory_is_a_most(self, kib, status):
        cells = {"geventws": results.summarize("geventws", [idle(kib)])}
        assert results.judge(MEMORY, MEMORY.goals[0], cells).status == status

    @pytest.mark.parametrize(("least", "status"), [(85, "met"), (84, "missed")])
    def test_fairness_is_a_least(self, least, status):
        goal = next(goal for goal in WINDOW.goals if goal.what == "fairness")
        cells = {"geventws": cell(per_conn={"min": least, "max": 100})}
        assert results.judge(WINDOW, goal, cells).status == status


class TestRows:
    def test_every_server_of_a_row_and_of_a_goal_exists(self):
        for row in rows.ROWS:
            named = {*row.servers, *row.quick_servers}
            for goal in row.goals:
                assert goal.subject in row.servers
                named.update(goal.against)
            assert named <= servers.SERVERS.keys()
            assert len(set(row.servers)) == len(row.servers)

    def test_deflate_rows_ask_only_servers_that_can(self):
        for row in rows.ROWS:
            if row.load.compress:
                assert all(servers.SERVERS[name].compresses for name in row.servers)

    def test_every_script_is_there(self):
        for server in servers.SERVERS.values():
            assert (BENCHMARKS / server.script).is_file()

    def test_names_are_file_names_and_differ(self):
        names = [row.name for row in rows.ROWS]
        assert len(set(names)) == len(names)
        assert all(name.replace("-", "").isalnum() for name in names)

    def test_quick_has_fewer_rows(self):
        assert 0 < len(rows.choose(None, quick=True)) < len(rows.choose(None, quick=False)) == len(rows.ROWS)

    def test_rows_keep_the_order_of_the_table(self):
        assert [row.name for row in rows.choose(["memory", "small"], quick=True)] == ["small", "memory"]

    def test_unknown_row_is_an_error_that_lists_rows(self):
        with pytest.raises(ValueError, match=r"no row is named smal; there are small, "):
            rows.choose(["smal"], quick=False)

    def test_load_is_spelled_for_the_generator(self):
        load = rows.Load(connections=3, size=64, window=2, binary=True, prime=1, compress=True)
        line = " ".join(load.arguments())
        for part in ("--connections 3", "--size 64", "--window 2", "--binary", "--compress", "--prime 1"):
            assert part in line
        source = generator.SOURCE.read_text(encoding="utf-8")
        assert all(f'{{"{word[2:]}", ' in source for word in load.arguments() if word.startswith("--"))


class TestSamples:
    LOAD = rows.Load(connections=100, compress=True)

    def test_good_sample(self):
        assert generator.problem_of(sample(), rows.Load(connections=100)) is None

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"errors": 3, "first_error": "wrong bytes"}, "3 errors, the first: wrong bytes"),
            ({"deflate_negotiated": 99}, "agreed on 99 of 100"),
            ({"deflate_negotiated": 100, "compressed_echoes": 900}, "only 900 of 1000 echoes"),
            ({"deflate_negotiated": 100, "compressed_echoes": 0, "count": 0}, "nothing was counted"),
        ],
    )
    def test_worthless_sample(self, changes, problem):
        assert problem in generator.problem_of(sample(**changes), self.LOAD)

    def test_idle_connections_must_be_open_at_the_end(self):
        load = rows.Load(mode="idle", connections=100)
        assert generator.problem_of(idle(9.0), load) is None
        assert "99 of 100" in generator.problem_of(idle(9.0) | {"open": 99}, load)


class TestBuild:
    def test_no_compiler_is_told(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(generator.BuildError, match="needs a C compiler"):
            generator.build(tmp_path / "out")

    def test_compiler_that_cannot_be_run_is_told(self, monkeypatch, tmp_path):
        monkeypatch.setenv("CC", str(tmp_path / "none"))
        with pytest.raises(generator.BuildError, match="cannot be run"):
            generator.build(tmp_path / "out")

    @pytest.mark.parametrize(
        ("stderr", "hint"),
        [
            ("wsload.c:26:10: fatal error: zlib.h: No such file or directory", "zlib1g-dev"),
            ("/usr/bin/ld: cannot find -lz", "zlib1g-dev"),
            ("fatal error: arpa/inet.h: No such file or directory", "libc6-dev"),
            ("error: expected ';'", "error: expected ';'"),
        ],
    )
    def test_what_is_missing_is_named(self, stderr, hint):
        assert hint in generator.explain(stderr)


class TestReport:
    RESULTS = results_of(
        {
            "small": {
                "geventws": [sample(3000.0, 5.0)],
                "aiohttp": [sample(1500.0, 9.0)],
                "picows": [sample(errors=1, first_error="wrong | bytes")],
            },
            "memory": {"geventws": [idle(8.0)], "aiohttp": [idle(13.7)]},
        },
        {"small": {"socketify": "ended with status 1: no module"}},
    )

    def test_best_first_errors_and_absent_ones_last(self):
        table = report.row_table(SMALL, report.cells_of(self.RESULTS, SMALL).values())
        assert [line[0] for line in table[1:3]] == ["geventws", "aiohttp"]
        assert {line[0]: line[1] for line in table[3:]} == {
            "picows": "ERROR: wrong | bytes",
            "socketify": "ERROR: absent: ended with status 1: no module",
        }
        assert len({len(line) for line in table}) == 1

    def test_least_memory_first(self):
        table = report.row_table(MEMORY, report.cells_of(self.RESULTS, MEMORY).values())
        assert table[1:] == [["geventws", "8.0", "3"], ["aiohttp", "13.7", "3"]]

    def test_goals_have_a_line_each(self):
        table = report.goals_table(report.verdicts(self.RESULTS))
        assert len(table) == 1 + len(SMALL.goals) + len(MEMORY.goals)
        assert table[1][:7] == [
            "small", "geventws", "1.10 x the best Python server", "2.00", "1.80", "aiohttp", "met",
        ]  # fmt: skip
        assert table[2][6] == "not measured"
        assert table[3][3:7] == ["8.0 KiB", "", "", "met"]

    def test_markdown_has_everything(self):
        text = report.markdown(self.RESULTS)
        assert "medians of 5 rounds of 2 s" in text
        assert "![100 connections, 32 B text, ping-pong](small.svg)" in text
        assert "wrong \\| bytes" in text
        assert "| processor | a \\| b |" in text
        for line in text.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")

    def test_bytes_on_the_wire_stand_where_messages_are_compressed(self):
        deflate = rows.choose(["deflate"], quick=False)[0]
        table = report.row_table(deflate, [cell(deflate_negotiated=100, wire_in_mb_per_s=0.25)])
        assert (table[0][-1], table[1][-1]) == ("bytes on the wire", "250")
        assert report.row_table(SMALL, [cell()])[0][-1] == "generator"

    def test_text_table_lines_up_and_leaves_out_empty_columns(self):
        lines = report.text_table(
            [["name", "n", "empty"], ["a", "1,000", ""], ["long", "9", ""]]
        ).splitlines()
        assert lines == ["name  n", "a     1,000", "long      9"]

    def test_files_are_written_and_can_be_made_again(self, tmp_path):
        written = report.write(self.RESULTS, tmp_path / "a")
        assert [path.name for path in written] == ["results.md", "small.svg", "memory.svg"]
        again = json.loads(json.dumps(self.RESULTS))
        for first, second in zip(written, report.write(again, tmp_path / "b"), strict=True):
            assert first.read_bytes() == second.read_bytes()


class TestChart:
    def test_bars_are_in_proportion_and_ours_stand_out(self):
        values = [("geventws", 200.0, 150.0, 200.0), ("a<b>", 100.0, None, None)]
        root = ET.fromstring(chart.bars('a "title" & more', "unit", values))
        bars = [element for element in root if element.tag.endswith("rect")]
        assert float(bars[0].get("width")) == pytest.approx(2 * float(bars[1].get("width")), abs=0.2)
        assert [bar.get("class") for bar in bars] == ["ours", None]
        assert sum(element.tag.endswith("line") for element in root) == 1
        texts = [element.text for element in root if element.tag.endswith("text")]
        assert texts[0] == 'a "title" & more'
        assert {"a<b>", "200", "100"} <= set(texts)

    def test_nothing_measured_is_said(self):
        assert "nothing was measured" in chart.bars("t", "u", [])


class TestRun:
    def test_options_of_quick_can_be_overridden(self):
        arguments = run.read_arguments(["--quick", "--rounds", "3", "--rows", "latency"])
        assert (arguments.rounds, arguments.seconds) == (3, 1.0)
        assert [row.name for row in arguments.chosen] == ["latency"]

    @pytest.mark.parametrize(
        "line", [["--rows", "none"], ["--servers", "apache"], ["--rounds", "0"], ["--seconds", "-1"]]
    )
    def test_bad_options_are_refused(self, line, capsys):
        with pytest.raises(SystemExit) as caught:
            run.read_arguments(line)
        assert caught.value.code == 2
        assert capsys.readouterr().err

    def test_servers_of_a_row(self):
        assert [s.name for s in run.servers_of(SMALL, [], quick=True)][:2] == ["geventws", "geventws-pure"]
        assert [s.name for s in run.servers_of(SMALL, ["ws", "picows"], quick=False)] == ["picows", "ws"]

    def test_quick_holds_fewer_idle_connections(self):
        assert run.for_quick(MEMORY).load.connections < MEMORY.load.connections
        assert run.for_quick(SMALL) is SMALL

    def test_error_of_ours_fails_the_run_and_of_others_does_not(self):
        bad = sample(errors=1, first_error="wrong bytes")
        good = [sample()]
        assert run.outcome(results_of({"small": {"geventws": good, "picows": [bad]}})) == []
        assert run.outcome(results_of({"small": {"geventws": [bad]}})) == ["small, geventws: wrong bytes"]
        found = results_of({"small": {"picows": good}}, {"small": {"geventws": "not the compiled build"}})
        assert run.outcome(found) == ["small, geventws: not the compiled build"]
        assert run.outcome(results_of({})) == ["nothing was measured"]

    def test_report_of_an_earlier_run(self, tmp_path, capsys):
        earlier = tmp_path / "results.json"
        earlier.write_text(json.dumps(TestReport.RESULTS))
        assert run.main(["--report", str(earlier), "--out", str(tmp_path / "out")]) == 0
        assert (tmp_path / "out" / "small.svg").exists()
        assert "1.10 x the best Python server" in capsys.readouterr().out


class TestProcesses:
    def test_server_that_ends_at_once_is_absent_with_its_last_words(self):
        command = [sys.executable, "-c", "import sys; sys.exit('ModuleNotFoundError: no picows')"]
        process = processes.Process("x", command, 1, environment={}, cpu=None, priority=False)
        with process, pytest.raises(processes.Absent, match=r"status 1: ModuleNotFoundError: no picows"):
            process.wait_ready(time.monotonic() + 25)
        assert not process.alive

    def test_program_that_is_not_there_is_absent(self, tmp_path):
        with pytest.raises(processes.Absent, match="No such file"):
            processes.Process("x", [str(tmp_path / "no")], 1, environment={}, cpu=None, priority=False)

    def test_children_are_found_and_ended_with_the_server(self):
        # The child ignores SIGTERM and says so; its parent would leave it behind.
        child = (
            "import signal, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)\n"
        )
        parent = (
            "import subprocess, sys\n"
            f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
            "child.stdout.readline(); print(child.pid, flush=True); child.wait()\n"
        )
        command = [sys.executable, "-c", parent]
        with processes.Process("x", command, 1, environment={}, cpu=None, priority=False) as process:
            deadline = time.monotonic() + 25
            while not process.last_words().isdigit() and time.monotonic() < deadline:
                time.sleep(0.01)
            pid = int(process.last_words())
            assert pid in process.pids()
            leader = os.getsid(pid)
        # Killed; whoever has inherited it may take a moment to collect it.
        deadline = time.monotonic() + 25
        while pid in processes.session_pids(leader) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pid not in processes.session_pids(leader)

    def test_pinning_ends_with_the_block(self):
        before = os.sched_getaffinity(0)
        with processes.pinned(min(before)):
            assert os.sched_getaffinity(0) == {min(before)}
        assert os.sched_getaffinity(0) == before


class TestEnvironment:
    def test_every_package_of_a_peer_is_pinned(self):
        pins = environment.pins(environment.REQUIREMENTS.read_text(encoding="utf-8"))
        assert all(pin.count("==") == 1 for pin in pins)
        names = {pin.partition("==")[0] for pin in pins}
        for server in servers.SERVERS.values():
            if server.runs_on == "peers":
                assert set(server.packages) <= names

    def test_versions_of_what_is_installed(self):
        found = environment.versions(sys.executable, ["pytest", "no-such-distribution"])
        assert found["pytest"] == pytest.__version__
        assert "no-such-distribution" not in found
        assert found["Python"] == ".".join(map(str, sys.version_info[:3]))


class TestInstructions:
    def test_statuses(self):
        counted = {"same": 104, "more": 106, "less": 94, "new": 1}
        committed = {"same": 100, "more": 100, "less": 100, "gone": 1}
        assert dict(instructions.compare(counted, committed, 0.05)) == {
            "same": "as before",
            "more": "more",
            "less": "less",
            "new": "new",
            "gone": "gone",
        }

    def test_total_is_read_from_a_dump(self):
        assert instructions.read_total("events: Ir\nfn=(1)\n5 1\ntotals: 8179573\n") == 8179573
        with pytest.raises(instructions.CannotCount):
            instructions.read_total("events: Ir\n")

    def test_no_valgrind_is_told(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(instructions, "section", lambda: "here")
        monkeypatch.setattr(instructions, "COMMITTED", tmp_path / "committed.json")
        instructions.COMMITTED.write_text('{"here": {"compiled": {}, "python": ""}}')
        assert instructions.main([]) == 0
        assert "!! SKIPPED: there is no valgrind" in capsys.readouterr().out

    def test_no_counts_for_this_python_is_told(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(instructions, "COMMITTED", tmp_path / "committed.json")
        assert instructions.main([]) == 0
        assert "!! SKIPPED: committed.json has no counts for" in capsys.readouterr().out

    @pytest.mark.parametrize(("python", "status"), [(sys.version, 1), ("another build", 0)])
    def test_more_fails_beside_counts_of_the_same_python_only(
        self, monkeypatch, tmp_path, capsys, python, status
    ):
        monkeypatch.setattr(instructions, "COMMITTED", tmp_path / "committed.json")
        committed = {instructions.section(): {"compiled": {"x": 100}, "pure": {"x": 100}, "python": python}}
        instructions.COMMITTED.write_text(json.dumps(committed))
        monkeypatch.setattr(instructions, "count", lambda build: {"x": 200})
        assert instructions.main([]) == status
        assert ("!! NOT COMPARABLE" in capsys.readouterr().out) == (status == 0)
        assert json.loads(instructions.COMMITTED.read_text()) == committed

    def test_workloads_do_what_they_say(self):
        for workload in instructions.WORKLOADS:
            step = workload.make()
            step()
            step()


class TestClients:
    SMALL = next(row for row in clients.ROWS if row.name == "client-small")
    IDLE = next(row for row in clients.ROWS if row.name == "client-memory")

    def test_rows_and_goals_name_clients_that_are_there(self):
        for row in clients.ROWS:
            assert {*row.servers, *row.quick_servers} <= clients.CLIENTS.keys()
            for goal in row.goals:
                assert {goal.subject, *goal.against} <= clients.CLIENTS.keys()
        for client in clients.CLIENTS.values():
            assert (BENCHMARKS / "clients" / client.script).is_file()

    def test_choice(self):
        assert [row.name for row in clients.choose(["client-memory", "client-small"], quick=False)] == [
            "client-small",
            "client-memory",
        ]
        assert 0 < len(clients.choose(None, quick=True)) < len(clients.choose(None, quick=False))
        with pytest.raises(ValueError, match="no row is named small; there are client-latency, "):
            clients.choose(["small"], quick=False)

    def printed(self, **changes):
        made = {
            "mode": "echo",
            "errors": 0,
            "count": 3000,
            "seconds": 1.5,
            "cpu_s": 0.03,
            "server_cpu_s": 0.3,
        }
        return made | {"rss_kib": 2048, "per_conn": {"min": 1, "max": 2}, "foreign_cpu_share": 0.0} | changes

    def test_sample_becomes_a_cell_of_the_client(self):
        found = results.summarize("geventws", [clients.sample_of(self.printed(), self.SMALL)])
        assert (found.rate, found.cpu, found.generator) == (2000.0, pytest.approx(10.0), pytest.approx(0.2))
        assert found.error is None
        assert (found.p50, found.rss) == (None, 2.0)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"errors": 1, "first_error": "Failure: x"}, "Failure: x"),
            ({"count": 0}, "nothing was counted"),
            ({"mode": "idle", "open": 1999}, "1999 connections were open"),
        ],
    )
    def test_worthless_sample(self, changes, problem):
        found = results.summarize("x", [clients.sample_of(self.printed(**changes), self.IDLE)])
        assert problem in found.error

    def test_no_npm_is_told(self, monkeypatch, tmp_path):
        monkeypatch.setattr(clients.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(clients.platform, "libc_ver", lambda: ("glibc", "2"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(clients.ServerMissing, match="apt-get install npm"):
            clients.install_server(tmp_path)
        monkeypatch.setattr(clients.platform, "machine", lambda: "abacus")
        with pytest.raises(clients.ServerMissing, match="x86_64 and aarch64"):
            clients.install_server(tmp_path)

    @pytest.mark.parametrize("row", clients.ROWS, ids=lambda row: row.name)
    def test_our_client_is_measured(self, row):
        port = processes.free_port()
        line = [sys.executable, str(BENCHMARKS / "servers" / "geventws_echo.py"), "--port", str(port)]
        name = "geventws" if geventws.IMPLEMENTATION == "compiled" else "geventws-pure"
        client = clients.CLIENTS[name]
        load = dataclasses.replace(row.load, connections=2)
        with processes.Process("x", line, port, environment={}, cpu=None, priority=False) as server:
            server.wait_ready(time.monotonic() + 25)
            line = client.command(sys.executable, load, port=port, pids=server.pids())
            printed = generator.run(
                [*line, "--seconds", "0.2", "--warmup", "0"],
                limit=60,
                pids=server.pids(),
                cpu=None,
                watched={0},
                priority=False,
                environment=dict(client.environment),
            )
        row = dataclasses.replace(row, load=load)
        assert results.summarize(name, [clients.sample_of(printed, row)]).error is None

    def test_many_clients_live(self):
        line = [sys.executable, str(BENCHMARKS / "many_clients.py"), "--connections", "20"]
        line += ["--interval", "0.2", "--intervals", "2", "--timeout", "20"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "20 open, 20 answered" in done.stdout


def test_scripts_explain_themselves():
    scripts = ("run.py", "run_clients.py", "many_clients.py", "micro.py", "instructions.py", "plain_http.py")
    for name in scripts:
        line = [sys.executable, str(BENCHMARKS / name), "--help"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage" in done.stdout


def test_plain_http_measures_each_way_to_serve(capsys):
    pytest.importorskip("flask")
    # So short a run says nothing: its status is not looked at.
    load_script("plain_http").main(["--rounds", "2", "--count", "10"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [
        "WebSocketMiddleware(app)",
        "WebSocketMiddleware(app, router)",
        "handler_class=WebSocketHandler",
        "Flask with Sock",
    ]
    for line in lines:
        without, within, _ = (float(cell) for cell in line.split("|")[2:5])
        assert without > 0
        assert within > 0
