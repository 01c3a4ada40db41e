"""What the tests of the protocol share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geventws.protocol import isal


@pytest.fixture(scope="module", params=["zlib", "isal"])
def compressor(request: pytest.FixtureRequest) -> Iterator[str]:
    """What compresses messages: each implementation in turn. The tests' packages include isal."""
    if request.param == "isal" and isal.isal_zlib is None:
        pytest.skip("isal is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "zlib":
            patch.setattr(isal, "isal_zlib", None)
        yield request.param
