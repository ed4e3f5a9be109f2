"""Golden data for the tests that compare with the paper's code."""

from __future__ import annotations

import pytest
from golden import SETS, Golden, open_set


@pytest.fixture(scope="session", params=SETS)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The part that is shipped; also the whole set, where it is at hand."""
    return open_set(request.param, tmp_path_factory.mktemp("golden"))
