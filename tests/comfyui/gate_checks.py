"""A pair with a prompt gate on the models of `variants`: the text that the DiT is called with decides what acts."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from checkpoint_forms import LARGEST
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.families import family_of
from dualreal_pack.dualreal_core.method.blend import FixedBlend
from dualreal_pack.dualreal_core.method.pair import with_gate
from dualreal_pack.dualreal_core.method.prompt_gate import MARGIN, PromptGate
from dualreal_pack.nodes.patching import Strengths, applied_pairs, apply_pair
from dualreal_pack.nodes.prompt_texts import text_in_call
from variant_bench import PROMPT_ONLY, Bench, distance
from variant_inputs import TEXT_LENGTH, conditioning

PROMPT, OTHER, NEGATIVE = 11, 13, 12
"""Seeds of texts: one names the identity, the other one the motion, and the negative prompt nothing."""
KINDS = ("lora", "bottleneck")
EVERYWHERE = Strengths(adapts_negative=True, audio=1.0)
BLEND = FixedBlend(1.25, 0.75)
NEAR = 1e-4
"""Relative distance of what must be the same but for rounding in float32."""
QUANTIZED_NEAR = 0.02
"""Of the effect: tokens that are rounded to steps make steps of what rounding left."""
SHORTER = TEXT_LENGTH - 6
"""Repeated to a common length in a batch, or called apart."""


def gate(bench: Bench) -> None:
    """Weights by prompt, whatever stands beside it; exact where nothing is named; one side alone as at the other's strength 0."""
    named = gate_for(text_of(bench, PROMPT), text_of(bench, OTHER))
    for kind in KINDS:
        model = with_gated(bench, kind, named)
        for seed, roles in ((PROMPT, (1.0, 0.0)), (OTHER, (0.0, 1.0))):
            found = bench.sampled(model, prompts=(seed, NEGATIVE))
            expect_weights(model, roles, f"the prompt that names {roles}")
            alone = bench.sampled(bench.with_pair(kind, strengths=Strengths(*roles), blend=BLEND), prompts=(seed, NEGATIVE))
            effect = distance(alone, bench.stock(prompts=(seed, NEGATIVE)))
            near = QUANTIZED_NEAR * effect if bench.variant.form in LARGEST else NEAR
            assert effect > 10 * NEAR, "a side does not act"
            assert distance(found, alone) < near, f"a side that is not named is {distance(found, alone)} off one at strength 0"
        for how in ({"cfg": 1.0}, {"lengths": (TEXT_LENGTH, SHORTER)}, *([{"batch": 2}] if bench.variant.max_batch > 1 else [])):
            bench.sampled(model, **how)
            expect_weights(model, (1.0, 0.0), str(how))
    silent = PromptGate(named.features.in_features)
    torch.nn.init.constant_(silent.named.bias, -2 * MARGIN)
    for kind, strengths in ((KINDS[0], PROMPT_ONLY), *((kind, EVERYWHERE) for kind in KINDS)):
        off = with_gated(bench, kind, silent, strengths)
        assert bench.sampled(off).equal(bench.stock()), f"a {kind} pair acts on a prompt that does not name it"
        expect_weights(off, (0.0, 0.0), "a prompt that names nothing")


def text(bench: Bench) -> None:
    """What a gate is fitted to, a prompt without images, is what the DiT is called with in sampling."""
    bare = replace(bench.variant, extras={})
    for seed in (PROMPT, NEGATIVE):
        called = text_of(bench, seed)[0]
        with torch.inference_mode():
            fitted = text_in_call(bench.model.model, conditioning(bare, seed), bench.model.load_device)
        assert fitted.float().equal(called), "the DiT is called with another text"


def with_gated(bench: Bench, kind: str, gate: PromptGate, strengths: Strengths = PROMPT_ONLY) -> ModelPatcher:
    with torch.inference_mode(False):
        pair = with_gate(bench.pair(kind), copy.deepcopy(gate)).requires_grad_(False)
    return apply_pair(bench.model, pair, strengths, BLEND)


def expect_weights(model: ModelPatcher, named: tuple[float, float], what: str) -> None:
    """Those of the last sampling, (S, G, 2)."""
    found = applied_pairs(model)[0].parts[-1].record.table()
    assert found.equal((torch.tensor([BLEND.identity, BLEND.motion]) * torch.tensor(named)).expand_as(found)), f"{what}: weights {found}"


def text_of(bench: Bench, seed: int) -> torch.Tensor:
    """What the DiT is called with for a prompt, (1, T, X); some models change it before they are sampled."""
    seen: list[torch.Tensor] = []
    family = family_of(bench.transformer)

    def keep(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(family.text_of(args, kwargs))

    handle = bench.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        bench.sampled(bench.model, prompts=(seed, NEGATIVE), cfg=1.0)
    finally:
        handle.remove()
    assert all(text.equal(seen[0]) for text in seen), "the text changes from step to step"
    return seen[0].float().clone()


def gate_for(*texts: torch.Tensor) -> PromptGate:
    """A gate for which each text names one side alone, by the first of its tokens."""
    with torch.inference_mode(False), torch.no_grad():
        texts = tuple(text.clone() for text in texts)
        made = PromptGate(texts[0].shape[-1], len(texts))
        for row, text in enumerate(texts):
            token = text[0, 0]
            made.features.weight[row] = token / token.norm()
        made.named.weight.copy_(torch.eye(len(texts)))
        made.named.bias.zero_()
        logits = torch.cat([made.logits(text) for text in texts])  # (texts, sides)
        own = logits.diagonal()
        others = torch.stack([logits[[row for row in range(len(texts)) if row != side], side].amax() for side in range(len(texts))])
        assert (own > others).all(), "the texts are too much alike"
        factor = 4 * MARGIN / (own - others)
        made.named.weight.copy_(torch.diag(factor))
        made.named.bias.copy_(-factor * (own + others) / 2)
        assert made(torch.cat(texts)).equal(torch.eye(len(texts)))
        return made
