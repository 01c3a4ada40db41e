#!/usr/bin/env python3
"""Fetch the official Autobahn|Testsuite (a Python 2 wheel on PyPI) and translate it to Python 3.

    translate.py DEST [--wheel FILE]      DEST/autobahntestsuite can be imported afterwards

Only what `wstest -m fuzzingclient` and `-m fuzzingserver` use is taken. The wheel is pinned by its
SHA-256, every patch says how often it must fit, and anything unexpected stops the build.
Needs lib2to3 (Python up to 3.12) or fissix, and pip for the download.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile

VERSION = "25.10.1"
SHA256 = "b57ee6b22de624a03256878ad453c9897d2ad7ee08a4c38b35ee2847637e1383"
DOWNLOAD_TIMEOUT = 300  # seconds
FILES = re.compile(
    r"autobahntestsuite/(_version|fuzzing|caseset|report)\.py$"
    r"|autobahntestsuite/case/\w+\.py$|autobahntestsuite/(testdata|web)/.*[^/]$"
)
GLUE = pathlib.Path(__file__).with_name("_py3.py")

# (file, how many times in all, pattern, replacement)
PATCHES = [
    # Old-style classes: `type(name, (object, Case, ), ...)` has no method resolution order any more.
    (r"case/.*", 6, r"\(object, Case, \)", "(Case, )"),
    (r"case/case\.py", 1, r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "obj1 == obj2"),
    # A case that the suite itself leaves out; it needs zope.interface.implements.
    (r"case/__init__\.py", 1, r"from case9_9_1 import \*", ""),
    # The reports of the WAMP tests, which are not taken; they need jinja2.
    (r"report\.py", 1, r"(?s)REPORT_DIR_PERMISSIONS = .*", ""),
    (r"report\.py", 1, r"import jinja2\n", ""),
    # Integer division.
    (r"case/case10_1_1\.py", 1, r"len\(self\.payload\) / self", "len(self.payload) // self"),
    # Octets: see _py3.py.
    (r".*", 30, r"binascii\.(b2a_hex|hexlify)\(", "_py3.hexs("),
    (r"case/case12_x_x\.py", 1, r"def onMessage\(self, msg, binary\):\n", r"\g<0>   msg = _py3.to_b(msg)\n"),
    (r"fuzzing\.py", 1, r"class FuzzingProtocol:", "class FuzzingProtocol(_py3.Protocol):"),
    (
        r"fuzzing\.py",
        1,
        r'ellipses = " \.\.\."\n(\s+)try:',
        r'ellipses, data = b" ...", _py3.to_b(data)\n\1try:',
    ),
    (r"fuzzing\.py", 1, r"''\.join\(payload\)", "b''.join(payload)"),
    (r"fuzzing\.py", 1, r"json\.loads\(msg\)", "json.loads(_py3.to_b(msg))"),
    (r"fuzzing\.py", 1, r"logCase\(caseResult\)", "logCase(_py3.clean(caseResult))"),
    # Reports.
    (
        r"fuzzing\.py",
        4,
        r"(open\(os\.path\.join\(outdir, report_filename\), 'w')\)",
        r"\1, encoding='utf-8')",
    ),
    (r"fuzzing\.py", 1, r"""\(('         <tr class="stats_row"><td>%s.*?)\)\.encode\("utf-8"\)""", r"\1"),
    (r"fuzzing\.py", 1, r"ll\.encode\('utf8'\)", "ll"),
    (r"fuzzing\.py", 1, r"% CCase\.DESCRIPTION\b", "% _py3.text(CCase.DESCRIPTION)"),
    (r"fuzzing\.py", 1, r"putChild\('cwd'", "putChild(b'cwd'"),
    (r"caseset\.py", 3, r"'\\\.'\)", r"'\\\\.')"),
]


def translator():
    """Return a 2to3 tool with all its ordinary fixers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            from lib2to3 import refactor
        except ImportError:
            from fissix import refactor
    package = refactor.__name__.rpartition(".")[0] + ".fixes"
    return refactor.RefactoringTool(refactor.get_fixers_from_package(package))


def wheel(path=None):
    """Return the suite's wheel, from a file or from PyPI."""
    if path:
        data = pathlib.Path(path).read_bytes()
    else:
        # The wheel says Python 2; pip hands it out when it is asked for that version.
        with tempfile.TemporaryDirectory() as tmp:
            pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", tmp]
            pip += ["--only-binary", ":all:", "--implementation", "py", "--abi", "none"]
            pip += ["--python-version", "2.7", "autobahntestsuite==" + VERSION]
            subprocess.run(pip, check=True, timeout=DOWNLOAD_TIMEOUT)
            data = next(pathlib.Path(tmp).glob("*.whl")).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ValueError(f"not the autobahntestsuite {VERSION} wheel with SHA-256 {SHA256}")
    return zipfile.ZipFile(io.BytesIO(data))


def build(dest, wheel_file=None):
    """Build the suite in the directory `dest`, replacing what an earlier build left there."""
    dest, counts = pathlib.Path(dest), [0] * len(PATCHES)
    shutil.rmtree(dest / "autobahntestsuite", ignore_errors=True)
    tool, source = translator(), wheel(wheel_file)
    members = sorted(filter(FILES.match, source.namelist()))
    source.extractall(dest, members)
    package = dest / "autobahntestsuite"
    shutil.copy(GLUE, package)
    (package / "__init__.py").write_text("from ._version import __version__ as version\nfrom . import _py3\n")
    for target in (dest / name for name in members if name.endswith(".py")):
        # Latin-1 makes each octet of a Python 2 string literal the code point of its value.
        text = target.read_bytes().decode("latin-1").replace("\r\n", "\n").rstrip() + "\n"
        text = re.sub(r"coding[:=]\s*[-\w.]+", "", text, count=1)
        for i, (where, _, pattern, new) in enumerate(PATCHES):
            if re.fullmatch(where, target.relative_to(package).as_posix()):
                text, n = re.subn(pattern, new, text)
                counts[i] += n
        text = str(tool.refactor_string(text, str(target)))
        if "_py3." in text:
            text = "from autobahntestsuite import _py3\n" + text
        target.write_text(text, encoding="utf-8")
    for patch, n in zip(PATCHES, counts, strict=True):
        if n != patch[1]:
            raise ValueError(f"patch {patch[2]!r} fits {n} times, not {patch[1]}")


def fingerprint():
    """Return a string that changes whenever a build would come out differently."""
    parts = [pathlib.Path(__file__).read_bytes(), GLUE.read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def build_once(dest):
    """Build the suite in `dest` unless this very build stands there already.

    The stamp is written last, so a build that was cut short is made anew.
    """
    stamp = pathlib.Path(dest) / "stamp"
    if stamp.is_file() and stamp.read_text() == fingerprint():
        return False
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    build(dest)
    stamp.write_text(fingerprint())
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dest")
    parser.add_argument("--wheel")
    arguments = parser.parse_args()
    build(arguments.dest, arguments.wheel)
