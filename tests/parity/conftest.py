"""What the comparison of the two builds needs: both of them, in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from builds import Build, build_of, pure_package

import geventws


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a compiled build where there is none, and fail it where one is required."""
    if geventws.IMPLEMENTATION == "compiled":
        return
    if os.environ.get("GEVENTWS_PURE_PYTHON"):
        reason = "GEVENTWS_PURE_PYTHON is set: there is one build to look at"
    elif os.environ.get("GEVENTWS_BUILD_EXTENSION", "").strip().lower() == "yes":
        return
    else:
        reason = "the package that is installed is not compiled"
    for item in items:
        if "both_builds" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def both_builds() -> None:
    """For tests that compare."""
    if geventws.IMPLEMENTATION != "compiled":
        pytest.fail("GEVENTWS_BUILD_EXTENSION=yes, and the package that is installed is not compiled")


@pytest.fixture(scope="session")
def compiled(both_builds: None) -> Build:
    """The build under test."""
    return build_of("geventws")


@pytest.fixture(scope="session")
def pure_name(both_builds: None) -> Iterator[str]:
    """The name of a copy of the package that is loaded from source."""
    with pure_package("geventws_pure") as name:
        yield name


@pytest.fixture(scope="session")
def pure(pure_name: str) -> Build:
    """The same modules from source."""
    return build_of(pure_name)
