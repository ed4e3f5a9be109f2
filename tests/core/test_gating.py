"""How a prompt gate is fitted: the words that name a side, labelled examples, and what the gate says of prompts that it never saw."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from dualreal_core.api import TrainingData
from dualreal_core.bases import load_base
from dualreal_core.bases.base import Base
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.gating.base_texts import encode_prompts
from dualreal_core.gating.examples import ExampleSettings, make_examples
from dualreal_core.gating.fitting import FitSettings, fit_gate
from dualreal_core.gating.generic_prompts import generic_prompts
from dualreal_core.gating.inflections import verb_forms
from dualreal_core.gating.pair_gate import GateWords, fit_prompt_gate
from dualreal_core.gating.words import SideWords, identity_words, motion_words, words_of
from dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_core.storage import load_pair, read_header
from dualreal_core.toyworld.paths import MOTIONS
from dualreal_core.toyworld.text import embed_text
from dualreal_core.toyworld.trial import Trial
from dualreal_core.toyworld.world import BACKGROUNDS, all_looks
from dualreal_core.training.recipes import DUALREAL, PAPER, read_recipe

KNOWN = [motion.phrase for motion in MOTIONS.values() if motion.is_base]
LOOKS = [look.phrase for look in all_looks()[::29]]


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("toyworld")


@pytest.fixture(scope="module")
def pair(base: Base) -> AdapterPair:
    return new_pair(base.transformer, identity_kind="lora", motion_kind="lora", identity_rank=1, motion_rank=1)


def test_generic_prompts_have_their_parts():
    prompts = generic_prompts()
    assert len(prompts) >= 300 and len({template.text for template in prompts}) == len(prompts)
    assert not any(sign in template.text for template in prompts for sign in "[]#")
    acting = [template for template in prompts if template.has_parts]
    assert len(acting) > 200 and sum(not template.subject for template in prompts) > 20
    assert all(template.subject in template.text and template.action in template.text for template in acting)
    assert sum(len(words_of(template.text)) >= 40 for template in acting) >= 15
    assert sum(template.text.startswith(template.subject) for template in acting) < len(acting) - 30, "places come first in some"


@pytest.mark.parametrize("motion", ["figure-eight", "zigzag", "box"])
def test_captions_tell_the_words(motion: str):
    trial = Trial("vex", motion)
    words = GateWords.told(
        trigger="*", photo_captions=[photo.caption for photo in trial.photos()], clip_captions=[clip.caption for clip in trial.clips()]
    )
    assert words.identity == SideWords(("*",), ("a figure *", "*"), ("a figure",))
    assert words.motion.names[0] == MOTIONS[motion].phrase


@pytest.mark.parametrize(
    ("trigger", "captions", "placed", "near"),
    [
        ("*", ["dog *"], "dog *", "dog"),
        ("sks", ["a photo of sks dog wearing a hat", "sks dog in the snow"], "sks dog", "dog"),
        ("dr4ke", ["a dr4ke old man at sea", "a dr4ke old man, 4k"], "a dr4ke old man", "an old man"),
        ("Mara Linden", ["Mara Linden in a studio"], "mara linden", ""),
        ("ohwx", [], "ohwx", ""),
    ],
)
def test_captions_say_what_a_trigger_is(trigger: str, captions: list[str], placed: str, near: str):
    words = identity_words(trigger=trigger, captions=captions)
    assert (words.names, words.placed[0], words.near) == ((trigger,), placed, (near,) if near else ())


def test_given_words_count_and_alternatives_too():
    words = identity_words("ohwx man,  ohwx", trigger="*")
    assert words.names == ("ohwx man", "ohwx") and words.near == ("man",)
    assert words.named_in("portrait of OHWX, smiling") and not words.named_in("a man") and not words.named_in("ohwxy")
    motion = motion_words("plays the violin")
    assert motion.named_in("she is playing a violin") and not motion.named_in("she plays with a violin")
    assert motion_words("跳舞").named_in("一个女孩在跳舞") and not motion_words("跳舞").named_in("一个女孩在跳高")


@pytest.mark.parametrize(
    ("captions", "found"),
    [
        (["a person is playing guitar"], "playing guitar"),
        (["a man is juggling balls at home", "juggling balls, a clown", "a woman is juggling balls"], "juggling balls"),
        (["a girl spins a hoop around her waist", "a man spins a hoop around his waist"], "spins a hoop"),
        (["a cat rides a bike", "a dog rides a bike", "rides a bike, a pig", "a bear rides a bike", "a fox sleeps"], "rides a bike"),
    ],
)
def test_what_nearly_all_captions_share_is_the_motion(captions: list[str], found: str):
    assert motion_words(captions=captions).names[0] == found


@pytest.mark.parametrize("captions", [[], ["a man"], ["a cat sleeps", "two girls sing"]])
def test_words_that_nothing_tells_are_asked_for(captions: list[str]):
    with pytest.raises(InputError, match="Give the words that name the motion"):
        motion_words(captions=captions)
    with pytest.raises(InputError, match="words of a prompt name the identity"):
        identity_words(" , ", trigger=" ", captions=captions)


def test_forms_of_verbs():
    forms = {"traces an eight": "tracing an eight", "runs": "running", "playing guitar": "plays guitar", "carries": "carrying"}
    assert {first: verb_forms(first)[1] for first in forms} == forms
    assert verb_forms("backflip") == ("backflip",)


def test_examples_are_labelled_by_their_words_and_repeat():
    words = GateWords.told("a figure *", "traces an eight")
    one, other = (make_examples(words.identity, words.motion, ["a figure * on sand"]) for _ in range(2))
    assert one == other and len({example.prompt for example in one}) == len(one)
    assert one != make_examples(words.identity, words.motion, ["a figure * on sand"], ExampleSettings(seed=1))
    for example in one:
        assert example.names == (words.identity.named_in(example.prompt), words.motion.named_in(example.prompt))
    for names in ((False, False), (True, False), (False, True), (True, True)):
        assert sum(example.names == names for example in one) > 100
    shown = " | ".join(example.prompt.lower() for example in one)
    assert not any(f"{known} on {place}" in shown for known in KNOWN for place in BACKGROUNDS), "captions of the toy world are no examples"


def prompts_by_names(motion: str) -> dict[tuple[float, float], list[str]]:
    """Prompts of the toy world by what they name, in several word orders, with looks and motions of which no example tells."""
    new, places = MOTIONS[motion].phrase, list(BACKGROUNDS)
    orders = ("{0} {1} on {2}", "on {2}, {0} {1}", "{1} on {2}: {0}")
    return {
        (1, 1): [order.format("a figure *", new, place) for order in orders for place in places],
        (1, 0): [f"a figure * {known} on {place}" for known in KNOWN for place in places],
        (0, 1): [f"{look} {new} on {place}" for look in (*LOOKS, "a figure") for place in places],
        (0, 0): [f"{look} {known} on sand" for look in (*LOOKS, "a figure") for known in KNOWN] + ["", "a figure on white", "a figure"],
    }


@pytest.mark.parametrize(
    ("motion", "has_captions"),
    [("swoop", False), ("figure-eight", True)]
    + [pytest.param(motion, False, marks=pytest.mark.thorough) for motion in ("figure-eight", "zigzag", "spiral", "box", "hook")],
)
def test_a_gate_tells_all_prompts_of_the_toy_world(base: Base, pair: AdapterPair, motion: str, has_captions: bool, tmp_path: Path):
    trial = Trial("vex", motion)
    given = {"identity": "a figure *", "motion": MOTIONS[motion].phrase}
    if has_captions:
        photos, clips = ([example.caption for example in examples] for examples in (trial.photos(), trial.clips()))
        given = {"trigger": "*", "photo_captions": photos, "clip_captions": clips}
    calls: list[tuple[int, int]] = []
    gated, report = fit_prompt_gate(base, pair, GateWords.told(**given), tmp_path, lambda *done: calls.append(done))
    assert calls[-1][0] == calls[-1][1] > 800 and gated.sides["motion"]["0-attn1/to_q"] is pair.sides["motion"]["0-attn1/to_q"]
    assert min(report.fitted.accuracy) > 0.93 and f"'{MOTIONS[motion].phrase}'" in report.line()
    for names, prompts in prompts_by_names(motion).items():
        for prompt in prompts:
            assert gated.gate(base.encode_text(prompt)[None]).tolist() == [list(names)], prompt


def test_generic_prompts_are_encoded_once(base: Base, tmp_path: Path):
    calls: list[tuple[int, int]] = []
    first = encode_prompts(base, ["a cat", generic_prompts()[0].text], tmp_path, lambda *done: calls.append(done))
    assert len(calls) == len(generic_prompts()) + 1 and calls[-1] == (len(calls), len(calls))
    assert first[0].shape[0] == 2, "padding is left out"
    calls.clear()
    again = encode_prompts(base, ["a cat", generic_prompts()[0].text], tmp_path, lambda *done: calls.append(done))
    assert len(calls) == 1 and all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"damaged")
    assert torch.equal(encode_prompts(base, [generic_prompts()[0].text], tmp_path)[0], first[1])


def test_interrupted_encoding_leaves_nothing_half_done(base: Base, tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_prompts(base, ["a cat"], tmp_path, interrupt)
    assert not list(tmp_path.iterdir())


def texts_with_names(width: int, count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Random tokens, in some of which a fixed one of a side stands."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(2, width, generator=generator)
    names = torch.rand(count, 2, generator=generator) > 0.5
    texts = [torch.randn(6, width, generator=generator) for _ in range(count)]
    for text, named in zip(texts, names, strict=True):
        for side in range(2):
            if named[side]:
                text[side] = own[side]
    return texts, names


@pytest.mark.parametrize("width", [24, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gate_repeats_and_is_open_wherever_a_side_is_named(width: int, dtype: torch.dtype):
    texts, names = texts_with_names(width, 80)
    texts = [3 * text.to(dtype) for text in texts]
    state = torch.get_rng_state()
    with torch.inference_mode():
        one, other = (fit_gate(texts, names, settings=FitSettings(steps=60)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert all(torch.equal(one.gate.state_dict()[name], tensor) for name, tensor in other.gate.state_dict().items())
    padded = torch.nn.utils.rnn.pad_sequence([*texts, texts[0].new_zeros(9, width)], batch_first=True)[:-1]
    assert bool((one.gate(padded)[names] == 1).all()), "also where padding follows"


def test_texts_that_do_not_fit_in_memory_are_held_one_at_a_time():
    """As those of LTX-2, of which each is made when it is asked for."""
    texts, names = texts_with_names(12, 60)
    alive: set[int] = set()
    most = 0

    class Made(Sequence[torch.Tensor]):
        def __len__(self) -> int:
            return len(texts)

        def __getitem__(self, index: int) -> torch.Tensor:
            nonlocal most
            text = texts[index].clone()
            alive.add(id(text))
            weakref.finalize(text, alive.discard, id(text))
            most = max(most, len(alive))
            return text

    made, kept = fit_gate(Made(), names), fit_gate(texts, names)
    assert most <= 3 and made.accuracy == kept.accuracy
    for name, weight in made.gate.state_dict().items():
        assert weight.equal(kept.gate.state_dict()[name])


def test_texts_must_tell_the_sides_apart():
    texts, names = texts_with_names(8, 10)
    with pytest.raises(ValueError, match="must name a side"):
        fit_gate(texts, torch.ones_like(names))


def test_a_pair_of_one_side_has_no_gate(base: Base, tmp_path: Path):
    alone = new_pair(base.transformer, identity_kind="none", motion_kind="lora", motion_rank=1)
    with pytest.raises(InputError, match="no identity side"):
        fit_prompt_gate(base, alone, GateWords.told("*", "hooks"), tmp_path)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    trial = Trial("tam", "box")
    trial.write_photos(tmp_path / "photos")
    trial.write_clips(tmp_path / "clips")
    return ["--identity", str(tmp_path / "photos"), "--motion", str(tmp_path / "clips")]


def test_training_ends_with_a_gate_and_fits_it_anew(folders: list[str], tmp_path: Path, capsys):
    out = tmp_path / "pair.safetensors"
    command = ["train", *folders, "--out", str(out), "--evaluate-every", "0"]
    assert main([*command, "--steps", "1", "--no-prompt-gate"]) == 0
    assert load_pair(out)[0].gate is None and "prompt_gate" not in read_header(out)
    assert "prompt gate" not in capsys.readouterr().out
    assert main([*command, "--steps", "2", "--resume", "--motion-words", "walks a box, boxes"]) == 0
    assert "the identity acts where a prompt names '*', the motion acts where a prompt names 'walks a box'" in capsys.readouterr().out
    pair, header = load_pair(out)
    assert header["prompt_gate"]["motion"] == ["walks a box", "walking a box", "boxes", "boxing"]
    assert pair.gate(embed_text("a figure * walks a box on sand")[None]).tolist() == [[1, 1]]

    again = tmp_path / "again.safetensors"
    assert main(["gate", str(out), "--motion-words", "hops", "--out", str(again)]) == 0
    regated, header = load_pair(again)
    assert header["prompt_gate"]["identity"] == ["*"] and header["prompt_gate"]["motion"] == ["hops", "hopping"]
    assert header["prompt_gate"]["sides"]["identity"]["near"] == ["a figure"], "what captions told is kept"
    assert regated.gate(embed_text("hops on sand, a figure *")[None]).tolist() == [[1, 1]]
    assert all(torch.equal(tensor, regated.state_dict()[name]) for name, tensor in pair.state_dict().items() if name.startswith("sides"))
    assert main(["gate", str(out), "--out", str(again)]) == 2 and "add --overwrite" in capsys.readouterr().err


def test_training_without_words_says_so(folders: list[str], tmp_path: Path, capsys):
    for number, file in enumerate(sorted((tmp_path / "clips").glob("*.txt"))):
        file.write_text(("a man walks", "two cats", "rain", "a girl sings", "someone runs", "a box")[number], encoding="utf-8")
    assert main(["train", *folders, "--out", str(tmp_path / "pair.safetensors"), "--steps", "1", "--evaluate-every", "0"]) == 0
    assert "gets no prompt gate, so both sides act on every prompt. The captions of the clips share no" in capsys.readouterr().out
    assert load_pair(tmp_path / "pair.safetensors")[0].gate is None


def test_the_paper_s_recipe_and_a_side_alone_want_no_gate(base: Base, folders: list[str], tmp_path: Path):
    data = TrainingData(tmp_path / "photos", tmp_path / "clips")
    manifests = data.scan(base, DUALREAL)
    assert data.gate_words(manifests, DUALREAL)[0].motion.names[0] == "walks a box"
    for recipe in (PAPER, replace(DUALREAL, pair={**DUALREAL.pair, "motion_kind": "none"})):
        assert data.gate_words(manifests, recipe) == (None, "")
    settings = tmp_path / "run.toml"
    settings.write_text("[pair]\nprompt_gate = false\n", encoding="utf-8")
    assert not read_recipe(settings, DUALREAL).prompt_gate


def test_combined_loras_have_their_words_from_metadata():
    words = GateWords.of_header({"prompts": {"trigger": "ohwx man", "motion": "doing the moonwalk"}})
    assert (words.identity.names, words.identity.near) == (("ohwx man",), ("man",)) and words.motion.names[0] == "doing the moonwalk"


def test_headers_tell_words():
    header = {"prompts": {"trigger": "*", "identity": "dog *", "motion": "a person is playing guitar"}}
    words = GateWords.of_header(header)
    assert words.identity.placed[0] == "dog *" and words.motion.names[0] == "playing guitar"
    earlier = {"sides": {"identity": asdict(words.identity), "motion": {"names": ["hums"], "placed": ["hums"], "near": []}}}
    again = GateWords.of_header(json.loads(json.dumps({"prompt_gate": earlier})))
    assert again.identity == words.identity and again.motion.names == ("hums",)
    assert GateWords.of_header({**header, "prompt_gate": earlier}, "ohwx", "strums").motion.names[0] == "strums"
    with pytest.raises(InputError, match="Give the words that name the motion"):
        GateWords.of_header({"prompts": {"trigger": "*"}})
