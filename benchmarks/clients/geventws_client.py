"""geventws; GEVENTWS_PURE_PYTHON=1 runs it in pure Python."""

from __future__ import annotations

import os
import sys

import driver

import geventws

meter = driver.Meter()
wanted = "pure" if os.environ.get("GEVENTWS_PURE_PYTHON") else "compiled"
if wanted != geventws.IMPLEMENTATION:
    sys.exit(f"the {geventws.IMPLEMENTATION} build of geventws is installed, not the {wanted} one")
driver.run_greenlets(meter, lambda: geventws.connect(meter.uri, max_message_size=None))
