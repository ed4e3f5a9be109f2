"""Part `sampling`: one call of the DiT with a pair, against the same call of the base alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial

import torch
import torch._dynamo
from gpu_parts.shapes import RandomBase

from . import models
from .measuring import Clock, Ratio, Row, Timings, take_turns
from .models import PAIRS, SAMPLED, Size, attach, call_inputs, is_conditioned, make_pair, twin
from .reference import ReferencePair

GUIDED_ROWS = 2
BOTH_WAYS = ("LoRA 32", "bottleneck 64")
"""Pairs that are measured with all rows and under guidance; a condition changes nothing in that."""
COMPILED = ("LoRA 32", "bottleneck 64")
BLEND_WEIGHT = 1.0
"""At which LoRA is merged; half of the pairs' scale."""
PLAIN = "peft, two LoRA 32"
MOST_ERROR = 1e-4
"""Relative, of a compiled call against the same one uncompiled; rounding gives a hundredth of it."""


def run(quick: bool, rounds: int) -> Iterator[Row]:
    """A line for each arm of each size."""
    backend = "eager" if quick else models.backend_name()
    for size in SAMPLED:
        yield from _compare(size.tiny if quick else size, rounds, backend)


def _compare(size: Size, rounds: int, backend: str) -> Iterator[Row]:
    torch._dynamo.reset()
    base, makers, clocks, all_rows, bases = models.make_base(size), {}, {}, {}, {}
    guided_base = "base" if size.batch == GUIDED_ROWS else f"base, {GUIDED_ROWS} rows"

    def add(name: str, prepare: Callable[[RandomBase], object], rows: int = size.batch, against: str = "base") -> None:
        makers[name], all_rows[name], bases[name] = partial(_call, base, rows, prepare), rows, against

    def add_ours(name: str, pair: str, rows: int = size.batch, against: str = "base", strengths: list[float] | None = None) -> None:
        clocks[name] = Clock()
        add(name, partial(_attach, pair=pair, strengths=strengths), rows, against)

    for name, rows in {"base": size.batch, guided_base: GUIDED_ROWS}.items():
        add(name, lambda own: None, rows, name)
    add("base again", lambda own: None)
    add("merged LoRA 32", lambda own: models.merge(own, make_pair(own, "LoRA 32"), BLEND_WEIGHT))
    add(PLAIN, lambda own: models.inject_plain_lora(own, ("identity", "motion")))
    for pair in PAIRS:
        add_ours(f"ours, {pair}", pair)
    for pair in BOTH_WAYS:
        add_ours(f"ours, {pair}, guidance", pair, GUIDED_ROWS, guided_base, [0.0, 1.0])
    add("reference's arithmetic", partial(_hook_reference, is_conditioned=False))
    add("reference's arithmetic with condition", partial(_hook_reference, is_conditioned=True))
    compiled = f"base, {backend}"
    add(compiled, lambda own: own.transformer.compile(backend=backend, fullgraph=True))
    for pair in COMPILED:
        add(f"ours, {pair}, {backend}", partial(_attach_compiled, rows=size.batch, pair=pair, backend=backend))
    timings = take_turns(makers, rounds, clocks)
    for name, rows in all_rows.items():
        ratios = {
            "/ base": timings.ratio(name, bases[name]) if bases[name] != name else None,
            "/ peft": timings.ratio(name, PLAIN) if name in clocks and rows == all_rows[PLAIN] else None,
            "/ compiled base": timings.ratio(name, compiled) if name.endswith(f", {backend}") and name != compiled else None,
        }
        yield _row(size, name, rows, ratios, timings, clocks.get(name))


def _call(base: RandomBase, rows: int, prepare: Callable[[RandomBase], object]) -> Callable[[], torch.Tensor]:
    own = twin(base)
    kept, inputs = prepare(own), call_inputs(own, rows)

    def call(kept: object = kept) -> torch.Tensor:
        with torch.no_grad():
            return own.transformer(**inputs)[0]

    return call


def _attach(base: RandomBase, pair: str, strengths: list[float] | None) -> object:
    attachment = attach(base, make_pair(base, pair).requires_grad_(False), is_conditioned(pair))
    attachment.row_strengths = strengths
    return attachment


def _attach_compiled(base: RandomBase, rows: int, pair: str, backend: str) -> object:
    """Raises RuntimeError where compiled code, maybe of another model of the class, leaves the pair out."""
    attachment, inputs = attach(base, make_pair(base, pair).requires_grad_(False), is_conditioned(pair)), call_inputs(base, rows)
    with torch.no_grad():
        expected = base.transformer(**inputs)[0]
        base.transformer.compile(backend=backend, fullgraph=True)
        error = float((base.transformer(**inputs)[0] - expected).norm() / expected.norm())
    if error > MOST_ERROR:
        raise RuntimeError(f"compiled, the output is {error:.1e} away from that of the same uncompiled: the pair does not act as it should")
    return attachment


def _hook_reference(base: RandomBase, is_conditioned: bool) -> ReferencePair:
    pair = ReferencePair(base).requires_grad_(False)
    pair.condition = models.embedding() if is_conditioned else None
    return models.fill(pair)


def _row(size: Size, name: str, rows: int, ratios: Mapping[str, Ratio | None], timings: Timings, clock: Clock | None) -> Row:
    shares, note = timings.shares.get(name), timings.reasons.get(name, "")
    if clock is not None and clock.missing and not note:
        note = f"no share: {', '.join(clock.missing)} is missing"
    shown = {against: ratio and ratio.text() for against, ratio in ratios.items()}
    share = Ratio.of(shares).text(2) if shares else None
    counted = len(timings.seconds.get(name, []))
    raw = {"ratios": {against: asdict(ratio) for against, ratio in ratios.items() if ratio}, "cpu_s": timings.seconds.get(name)}
    return Row(
        {"model": size.title, "arm": name, "rows": rows, **shown, "share, %": share, "rounds": counted, "note": note},
        {**raw, "shares_percent": shares},
    )
