"""Some dozens of broken files of every kind that we read: a right result or one sentence. `benchmarks/fuzz.py` tries thousands."""

from __future__ import annotations

import fuzz
import fuzz_attempts
import pytest
from fuzz import outcomes, try_input
from fuzz_kinds import KINDS
from fuzz_media import CODECS

SEED = 18
COUNT = {**dict.fromkeys(KINDS, 16), **dict.fromkeys(CODECS, 4)}


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_give_a_right_result_or_one_sentence(kind):
    found = {number: try_input(kind, SEED, number) for number in range(COUNT[kind])}
    faults = {number: f"{outcome.word}: {outcome.detail}" for number, outcome in found.items() if outcome.is_fault}
    assert not faults, f"python benchmarks/fuzz.py --kinds {kind} --seed {SEED} --only {next(iter(faults))}: {faults}"
    assert any(outcome.word == "refused" for outcome in found.values())


def test_an_input_follows_from_its_number():
    name, content, _ = fuzz.make_input("pair", SEED, 3)
    fuzz.prepared.cache_clear()
    assert fuzz.make_input("pair", SEED, 3)[:2] == (name, content)


def test_what_is_no_sentence_is_a_fault(monkeypatch):
    def fails(path):
        raise KeyError("a key")

    monkeypatch.setitem(KINDS, "toml", KINDS["toml"].__class__(KINDS["toml"].samples, fails, KINDS["toml"].fault))
    monkeypatch.setattr(fuzz, "make_input", lambda *asked: ("recipe.toml", b"", None))
    outcome = try_input("toml", SEED, 0)
    assert outcome.is_fault and outcome.word == "raised" and "KeyError" in outcome.detail


def test_processes_that_end_or_hang_are_replaced():
    """The third input ends its process, the fifth never returns."""
    found = dict(outcomes("any", 0, list(range(8)), 2, fuzz_attempts.attempt, str, seconds=3))
    words = {number: outcome.word for number, outcome in found.items()}
    assert words == {**dict.fromkeys(range(8), "right"), 3: "ended", 5: "hung"}
