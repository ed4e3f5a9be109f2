"""Golden data for the tests that compare with the paper's code; what the core keeps for its user goes to a folder of the test."""

from __future__ import annotations

import pytest
from golden import SETS, Golden, open_set


@pytest.fixture(scope="session", params=SETS)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """The part that is shipped; also the whole set, where it is at hand."""
    return open_set(request.param, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session", autouse=True)
def caches_of_the_session(tmp_path_factory):
    """For fixtures of wider scope than one test."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    """Each test finds an empty cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
