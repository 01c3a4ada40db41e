"""Add up the test reports of all tox environments and refuse skips that are not expected.

    python3 .ci/summary.py DIRECTORY ALLOWED

DIRECTORY holds the `junit-*.xml` files. Each line of ALLOWED that is not a comment is a regular
expression, matched against "environment: test: reason" from its beginning. The last line printed
is the sum; the status is 1 where a test failed, a skip is not allowed or no test ran.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main(directory: Path, allowed: Path) -> int:
    patterns = [
        re.compile(line)
        for line in map(str.strip, allowed.read_text(encoding="utf-8").splitlines())
        if line and not line.startswith("#")
    ]
    passed = failed = skipped = 0
    unexpected = []
    for report in sorted(directory.glob("junit-*.xml")):
        environment = report.stem.removeprefix("junit-")
        for case in ET.parse(report).iter("testcase"):
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif skip is None:
                passed += 1
            elif skip.get("type") == "pytest.xfail":
                passed += 1  # expected to fail, and did; xfail_strict makes the contrary a failure
            else:
                skipped += 1
                what = f"{environment}: {case.get('classname')}.{case.get('name')}: {skip.get('message')}"
                if not any(pattern.match(what) for pattern in patterns):
                    unexpected.append(what)
    for what in unexpected:
        print(f"skipped, and not listed in {allowed}: {what}")
    if not passed:
        print(f"no test report in {directory} has a passed test")
    print(f"{passed} passed, {failed + len(unexpected)} failed, {skipped - len(unexpected)} skipped")
    return int(bool(failed or unexpected or not passed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
