"""tests/autobahn: what counts as a difference, and that a faulty server cannot pass for a good one.

The suite itself is not run here; `tox -e autobahn` does that.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).with_name("autobahn")


def load(name):
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", TOOL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


verdicts = load("verdicts")
children = load("children")

EXPECTED = {case: tuple(pair) for case, pair in json.loads((TOOL / "expected.json").read_text()).items()}


def record(behavior="OK", closing="OK", *, text="Connection was properly closed"):
    return {
        "behavior": behavior,
        "behaviorClose": closing,
        "result": "Actual events match at least one expected.",
        "resultClose": text,
        "remoteCloseCode": 1000,
    }


def outcome(expected, **results):
    return verdicts.Outcome(
        "mode", expected=expected, results={c[1:].replace("_", "."): r for c, r in results.items()}
    )


class TestExpectedTable:
    def test_everything_is_ok_but_three_informational_cases(self):
        informational = {case for case, verdict in EXPECTED.items() if verdict == verdicts.INFORMATIONAL}
        assert informational == {"7.1.6", "7.13.1", "7.13.2"}
        assert verdicts.count(list(EXPECTED.values())) == {"OK": 514, "INFORMATIONAL": 3, "other": 0}

    def test_quick_leaves_out_compression_only(self):
        quick = verdicts.select(EXPECTED, "quick")
        assert len(quick) == 301
        assert {c.split(".")[0] for c in EXPECTED.keys() - quick.keys()} == {"12", "13"}

    def test_select_takes_groups_and_cases(self):
        assert list(verdicts.select(EXPECTED, "10,2.9,2.10")) == ["2.9", "2.10", "10.1.1"]
        # 1 is a group, not the beginning of 10, 12 and 13.
        assert {c.split(".")[0] for c in verdicts.select(EXPECTED, "1")} == {"1"}

    def test_select_refuses_what_does_not_exist(self):
        with pytest.raises(ValueError, match=r"no case or group '2\.99'"):
            verdicts.select(EXPECTED, "2.9,2.99")

    def test_chunks_hold_every_case_once_in_order(self):
        split = verdicts.chunks(EXPECTED)
        held = [case for cases in split.values() for case in cases]
        assert held == sorted(EXPECTED, key=verdicts.case_key)
        assert split["10"] == ["10.1.1"]
        assert {case.rsplit(".", 1)[0] for case in split["12.1"]} == {"12.1"}

    def test_catalogue_differs_in_both_directions(self):
        assert verdicts.catalogue_errors(EXPECTED, list(EXPECTED)) == []
        listed = [case for case in EXPECTED if case != "1.1.1"] + ["14.1"]
        errors = verdicts.catalogue_errors(EXPECTED, listed)
        assert len(errors) == 2
        assert "case 1.1.1 is expected" in errors[0]
        assert "case 14.1 of the suite" in errors[1]


class TestDifferences:
    def test_as_expected(self):
        o = outcome({"2.9": verdicts.OK}, c2_9=record())
        assert o.differences() == []
        assert (o.passed(), o.failed()) == (1, 0)

    @pytest.mark.parametrize(
        "result", [record("NON-STRICT"), record("OK", "UNCLEAN"), record("INFORMATIONAL", "INFORMATIONAL")]
    )
    def test_another_verdict(self, result):
        o = outcome({"2.8": verdicts.OK, "2.9": verdicts.OK}, c2_8=record(), c2_9=result)
        assert o.differences() == ["2.9"]
        assert (o.passed(), o.failed()) == (1, 1)

    def test_better_than_expected(self):
        assert outcome({"7.1.6": verdicts.INFORMATIONAL}, c7_1_6=record()).differences() == ["7.1.6"]

    def test_missing_and_extra_cases(self):
        o = outcome({"2.9": verdicts.OK, "2.10": verdicts.OK}, c2_10=record(), c2_11=record())
        assert o.differences() == ["2.9", "2.11"]
        assert verdicts.difference_lines(o) == [
            "case 2.11: OK/OK, expected no such case (behavior/closing)",
            "1 cases are missing: 2.9",
        ]
        assert verdicts.closing_line(o) == "autobahn mode: 3 cases, 2 OK, 0 INFORMATIONAL, 1 other"

    def test_informational_case_that_nobody_answered(self):
        result = record("INFORMATIONAL", "INFORMATIONAL", text=verdicts.NEVER_OPENED)
        o = outcome({"7.1.6": verdicts.INFORMATIONAL}, c7_1_6=result)
        assert o.differences() == ["7.1.6"]

    def test_line_names_the_side_that_differs(self):
        o = outcome({"2.9": verdicts.OK}, c2_9=record("OK", "UNCLEAN", text="It should be clean."))
        (line,) = verdicts.difference_lines(o)
        assert line == "case 2.9: OK/UNCLEAN, expected OK/OK (behavior/closing): It should be clean"

    def test_fault_fails_though_all_cases_pass(self):
        o = outcome({"2.9": verdicts.OK}, c2_9=record())
        o.faults.append("the server ended with status 3")
        assert o.failed() == 1


class TestSummary:
    def summary(self, *outcomes):
        return verdicts.summary(
            list(outcomes),
            versions={"suite": "25.10.1"},
            groups={"2": "Pings/Pongs", "12": "Compression"},
            command="tox -e autobahn",
        )

    def test_all_as_expected(self):
        text = self.summary(outcome({"2.9": verdicts.OK}, c2_9=record()))
        assert "| mode | 1 | 1 OK | 1 OK | 0 |" in text
        assert "| 2 Pings/Pongs | 1 of 1 |" in text
        assert "Compression" not in text
        assert "* mode: behavior OK, closing OK, close frame with 1000" in text
        assert text.endswith("## Differences\n\nNone.\n")

    def test_nothing_is_hidden(self):
        o = outcome({"2.9": verdicts.OK, "2.10": verdicts.OK}, c2_9=record("OK", "UNCLEAN"))
        o.reruns["2.9"] = [("FAILED", "FAILED"), ("OK", "UNCLEAN")]
        o.faults.append("the server ended with status 3")
        skipped = verdicts.Outcome("other", skipped="not compiled")
        text = self.summary(o, skipped)
        assert "| 2 Pings/Pongs | 0 of 2, **2 other** |" in text
        assert "* mode: case 2.9: OK/UNCLEAN, expected OK/OK" in text
        assert "* mode: 1 cases are missing: 2.10" in text
        assert "* mode: the server ended with status 3" in text
        assert "case 2.9: FAILED/FAILED at first; run again alone: OK/UNCLEAN" in text
        assert "* other was skipped: not compiled" in text


LISTEN = "print('listening on ws://127.0.0.1:9', flush=True); "
WAIT = "import signal; signal.signal(signal.SIGTERM, lambda *a: sys.exit({})); {} signal.pause()"


@pytest.fixture
def serve(tmp_path, monkeypatch):
    # Before exec a child of this multi-threaded process can run nothing of its own without a warning.
    monkeypatch.setattr(children, "PREEXEC", None)

    def start(script):
        command = [sys.executable, "-c", "import sys; " + script]
        ready = r"^listening on ws://(?P<address>\S+)$"
        return children.Server(command, tmp_path / "log", ready=ready, cwd=tmp_path, env={})

    return start


class TestServer:
    def test_clean(self, serve):
        with serve(WAIT.format(0, LISTEN)) as server:
            assert server.address() == "127.0.0.1:9"
            assert server.stop() == []

    def test_ends_with_a_status(self, serve):
        with serve(WAIT.format(3, LISTEN)) as server:
            server.address()
            (fault,) = server.stop()
        assert "ended with status 3" in fault

    def test_writes_a_traceback(self, serve):
        script = f"print({children.TRACEBACK!r}, file=sys.stderr); {LISTEN}"
        with serve(WAIT.format(0, script)) as server:
            server.address()
            (fault,) = server.stop()
        assert "1 traceback" in fault

    def test_ends_before_it_listens(self, serve):
        told = pytest.raises(children.ServerLost, match="status 1, last line of its output: port taken")
        with serve("sys.exit('port taken')") as server, told:
            server.address()

    def test_never_listens(self, serve, monkeypatch):
        monkeypatch.setattr(children, "READY_TIMEOUT", 0.2)
        told = pytest.raises(children.ServerLost, match="did not listen within")
        with serve(WAIT.format(0, "")) as server, told:
            server.address()
        assert server.process.returncode == -signal.SIGKILL

    def test_ignores_sigterm(self, serve, monkeypatch):
        monkeypatch.setattr(children, "STOP_TIMEOUT", 0.2)
        script = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LISTEN} signal.pause()"
        with serve(script) as server:
            server.address()
            (fault,) = server.stop()
        assert "did not end within" in fault
        assert server.process.returncode == -signal.SIGKILL

    def test_leaves_a_process_behind(self, serve):
        child = (
            "import subprocess; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']); "
        )
        with serve(WAIT.format(0, child + LISTEN)) as server:
            server.address()
            assert server.stop() == ["the server left processes behind"]
