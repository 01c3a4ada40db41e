#!/usr/bin/env python3
"""Run the translated Autobahn|Testsuite (see translate.py) in this process.

    run.py SUITE list                          versions, groups and case numbers, as JSON
    run.py SUITE client SPEC.json [RESULTS]    test a server: as `wstest -m fuzzingclient`
    run.py SUITE server SPEC.json [RESULTS]    test clients: as `wstest -m fuzzingserver`; ends with SIGTERM
    run.py SUITE report OUTDIR RESULTS...      one HTML report from the results of any number of runs

Left alone, the suite keeps all results in memory until its last case has ended, so that a run which
hangs loses everything. With RESULTS each finished case is appended to that file at once (one pickle a
case) and no report is written; `report` makes it from those files later. `server` then listens on a port of
its own, and says which, instead of the one in SPEC.
"""

from __future__ import annotations

import collections
import json
import pathlib
import pickle
import socket
import sys


def read_results(path):
    """Yield the cases in a results file; a record cut short by a kill ends it."""
    with open(path, "rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except (EOFError, pickle.UnpicklingError):
                return


def list_cases():
    import autobahn
    import autobahntestsuite
    from autobahntestsuite import case, fuzzing

    cases = fuzzing.CaseSet(
        case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories
    )
    json.dump(
        {
            "suite": autobahntestsuite.version,
            "autobahn": autobahn.version,
            "groups": case.CaseCategories,
            "cases": list(cases.CasesIndices),
        },
        sys.stdout,
    )


def keep_results(fuzzing, results):
    """Have each result appended to a file as soon as its case has ended."""
    log_case = fuzzing.FuzzingFactory.logCase

    def keep(factory, result):
        log_case(factory, result)
        with open(results, "ab") as file:
            pickle.dump(result, file)

    fuzzing.FuzzingFactory.logCase = keep
    fuzzing.FuzzingFactory.createReports = lambda factory: None


def client(spec_file, results=None):
    from autobahntestsuite import fuzzing
    from twisted.internet import reactor

    spec = json.loads(pathlib.Path(spec_file).read_text())
    if results:
        keep_results(fuzzing, results)
    fuzzing.startClient(spec)
    reactor.run()
    return None if results else counts(spec)


def server(spec_file, results=None):
    from autobahntestsuite import fuzzing
    from twisted.internet import reactor

    spec = json.loads(pathlib.Path(spec_file).read_text())
    if results:
        keep_results(fuzzing, results)
        # The suite wants to know its port before it listens.
        listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        factory = fuzzing.FuzzingServerFactory({**spec, "url": f"ws://{address}"})
        reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, factory)
        reactor.callWhenRunning(print, f"listening on ws://{address}", flush=True)
    else:
        fuzzing.startServer(spec, spec.get("webport", 0))
    reactor.run()
    return None if results else counts(spec)


def report(outdir, *results):
    from autobahntestsuite import case, fuzzing

    factory = fuzzing.FuzzingFactory(outdir)
    factory.CaseSet = fuzzing.CaseSet(
        case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories
    )
    for path in results:
        for result in read_results(path):
            factory.logCase(result)
    factory.createReports()


def counts(spec):
    index = pathlib.Path(spec["outdir"]) / "index.json"
    agents = json.loads(index.read_text()) if index.exists() else {}
    for agent, cases in agents.items():
        for key in ("behavior", "behaviorClose"):
            print(agent, key, dict(collections.Counter(c[key] for c in cases.values())))
    return None if agents else "no results"


COMMANDS = {"list": list_cases, "client": client, "server": server, "report": report}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] not in COMMANDS:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    sys.exit(COMMANDS[sys.argv[2]](*sys.argv[3:]))
