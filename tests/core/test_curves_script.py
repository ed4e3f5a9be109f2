"""The page's editor reads, writes and draws blend curves as the core does; its logic runs in Node.js where that is installed."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from random_curves import MODULE, PLACES, READ_ALL, expected, texts

from dualreal_core.method.curves import AXES, MAX_WEIGHT, parse_curves
from dualreal_core.method.pair import ROLES
from dualreal_core.method.presets import PRESETS, movement_first

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js; tests/canvas tries the same in Chromium")


def evaluate(expression: str, *given: object) -> object:
    """What a function of the page's modules gives."""
    names = {
        "curves": "SIDES, AXES, MAX_WEIGHT, CurvesError, parseCurves, formatCurves, weightAt, weightOf, movedPoint, withPoint, "
        "besidePoint, withoutPoint, between, shareBetween",
        "history": "History",
        "used": "joinedUse, usedRanges",
        "words": "LANGUAGES, wordsOf",
    }
    imports = "\n".join(f"import {{ {which} }} from {json.dumps((MODULE.parent / f'{file}.js').as_uri())}" for file, which in names.items())
    call = f"console.log(JSON.stringify(({expression})({', '.join(map(json.dumps, given))})))"
    ran = subprocess.run([NODE, "--input-type=module", "-"], input=f"{imports}\n{call}", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_names_are_the_cores():
    assert evaluate("() => [SIDES, AXES, MAX_WEIGHT]") == [list(ROLES), list(AXES), MAX_WEIGHT]


def test_the_same_text_gives_the_same_weights():
    given = [*texts(600), *map(str, PRESETS.values())]
    found = evaluate(READ_ALL, given, PLACES)
    refused = 0
    for text, own in zip(given, found, strict=True):
        right = expected(text)
        assert (own is None) == (right is None), text
        if right is None:
            refused += 1
            continue
        for side, of_side in zip(own["weights"], right["weights"], strict=True):
            for axis, of_axis in zip(side, of_side, strict=True):
                assert axis == pytest.approx(of_axis, abs=2e-5), text
        assert str(parse_curves(own["written"])) == right["written"], text
    assert 60 < refused < 300


def test_points_stay_in_the_plot_and_in_order():
    points = [[0.2, 1], [0.5, 1], [0.8, 1]]
    assert evaluate("p => movedPoint(p, 1, 0.9, 9)", points) == [[0.2, 1], [0.799, 4], [0.8, 1]]
    assert evaluate("p => movedPoint(p, 1, -1, -1)", points) == [[0.2, 1], [0.201, 0], [0.8, 1]]
    assert evaluate("p => movedPoint(p, 2, 2, 0.123456)", points)[2] == [1, 0.123]
    assert evaluate("p => withPoint(p, 0.3, 2)", points) == [[[0.2, 1], [0.3, 2], [0.5, 1], [0.8, 1]], 1]
    assert evaluate("p => withPoint(p, 0.5004, 2)", points) is None
    assert evaluate("p => [besidePoint(p, 0), besidePoint(p, 2), besidePoint([[1, 2]], 0)]", points) == [[0.35, 1], [0.65, 1], [0.5, 2]]
    assert evaluate("p => [withoutPoint(p, 1), withoutPoint([[0, 1]], 0)]", points) == [[[0.2, 1], [0.8, 1]], [[0, 1]]]


def test_the_dial_is_the_cores_preset():
    ends = [str(movement_first(value)) for value in (0.0, 0.8)]
    dial = "(ends, share) => formatCurves(between(...ends.map(parseCurves), share))"
    for value in (0.0, 0.05, 0.4, 0.75, 0.8):
        assert parse_curves(evaluate(dial, ends, value / 0.8)) == movement_first(value)
    share = "(ends, text) => shareBetween(...ends.map(parseCurves), parseCurves(text))"
    assert evaluate(share, ends, str(movement_first(0.3))) == pytest.approx(0.3 / 0.8)
    for other in ("", "identity sigma 1:0.4 0.8:0.4 0.667:1.4 0:1.4", str(PRESETS["identity late"]), str(movement_first(1.0))):
        assert evaluate(share, ends, other) is None


def test_undo_and_redo():
    steps = """() => { const h = new History("a"), seen = []
      h.push("b"); h.push("b"); h.push("c"); seen.push(h.undo(), h.undo(), h.undo(), h.redo(), h.canRedo)
      h.push("d"); seen.push(h.canRedo, h.redo(), h.undo(), h.goTo("a"), h.text, h.goTo("c"), h.text, h.goTo("d"), h.text); return seen }"""
    assert evaluate(steps) == ["b", "a", "a", "b", True, False, "d", "b", True, "a", False, "a", True, "d"]
    assert evaluate("() => { const h = new History('0'); for (let i = 1; i < 500; i++) h.push(String(i)); return h.texts.length }") == 100


def test_what_was_used_is_joined_over_the_samplings_of_a_run():
    def used(prompt: str, *levels: float) -> dict:
        rows, stages = [[level, 1.0] for level in levels], [1 - level for level in levels]
        return {"prompt_id": prompt, "stages": stages, "noise_levels": list(levels), "identity": rows, "motion": rows}

    join = "(one, other) => joinedUse(one, other).noise_levels"
    assert evaluate(join, used("a", 1.0, 0.9), used("a", 0.8, 0.2)) == [1.0, 0.9, 0.8, 0.2]
    assert evaluate(join, used("a", 1.0, 0.9), used("b", 0.8, 0.2)) == [0.8, 0.2]
    assert evaluate(join, used("a", 1.0, 0.2), used("a", 1.0, 0.3)) == [1.0, 0.3]
    assert evaluate(join, None, used("a", 1.0)) == [1.0]
    ranges = "(used, axis) => usedRanges(used, 'identity', axis)"
    assert evaluate(ranges, used("a", 0.9, 0.5), "sigma") == [[0.9, 0.9, 0.95, 1], [0.5, 0.5, 0.75, 1]]
    assert evaluate(ranges, used("a", 0.9, 0.5), "depth") == [[0, 0.5, 0.7, 0.9], [1, 1, 1, 1]]


def test_every_word_has_both_languages():
    english, japanese = evaluate("() => [LANGUAGES.en, LANGUAGES.ja]")
    assert list(english) == list(japanese)
    for key, text in english.items():
        assert {part for part in "0123" if f"{{{part}}}" in text} == {part for part in "0123" if f"{{{part}}}" in japanese[key]}, key


@pytest.mark.parametrize(
    "text",
    ["identity 1:1", "identity sigma 1:x", "identity sigma 0.5:9", "motion depth 0.5:1 0.5:2", "motion sigma 1:1; motion sigma 1:1"],
)
def test_errors_are_said_in_the_cores_words(text: str):
    said = evaluate("text => { try { parseCurves(text) } catch (error) { return wordsOf('en').error(error) } }", text)
    with pytest.raises(Exception) as raised:
        parse_curves(text)
    assert said == str(raised.value)
