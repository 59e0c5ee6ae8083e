"""What the tests with clients of others share: those from npm are installed once, and kept."""

from __future__ import annotations

import pytest

from support.npm import Npm, install


@pytest.fixture(scope="session")
def npm(pytestconfig: pytest.Config) -> Npm:
    """The clients from npm, in pytest's cache."""
    assert pytestconfig.cache is not None
    return install(pytestconfig.cache.mkdir("npm-clients"))
