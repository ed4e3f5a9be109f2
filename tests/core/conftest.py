"""What the core keeps for its user goes to a folder of the test."""

from __future__ import annotations

import pytest


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
