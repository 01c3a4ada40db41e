"""What tox.ini cannot say: an environment named `compiled` without compiled modules is skipped, loudly.

So the test command of the README passes on a machine without a compiler, and says what it left out.
With GEVENTWS_BUILD_EXTENSION=yes the build itself fails before it comes to this.
"""

from __future__ import annotations

import os
import sys

from tox.execute.request import StdinSource
from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.errors import Fail, Skip

BANNER = """
*******************************************************************************
SKIPPED: {name}
The compiled modules were not built on this machine (no working C compiler?),
so NOTHING compiled is tested in this run. `pip install -v .` says why not,
GEVENTWS_BUILD_EXTENSION=yes makes that an error, CONTRIBUTING.md says what to install.
*******************************************************************************
"""


@impl
def tox_before_run_commands(tox_env: ToxEnv) -> None:
    name = tox_env.conf.name
    if "compiled" not in name.split("-"):
        return
    script = "import geventws; print(geventws.IMPLEMENTATION)"
    outcome = tox_env.execute(
        ["python", "-I", "-c", script], StdinSource.OFF, run_id="which build is installed", show=False
    )
    if outcome.exit_code != 0:
        raise Fail(f"geventws cannot be imported:\n{outcome.err}")
    if outcome.out.strip() == "compiled":
        return
    if os.environ.get("GEVENTWS_BUILD_EXTENSION", "").lower() == "yes":
        raise Fail("GEVENTWS_BUILD_EXTENSION is yes and the modules are not compiled")
    print(BANNER.format(name=name), file=sys.stderr, flush=True)
    raise Skip("the compiled modules were not built on this machine")
