"""`dualreal gate`: a prompt gate for a pair, from words alone."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..gating.pair_gate import GateWords, fit_prompt_gate
from ..storage import load_pair, save_pair
from .options import check_output_folder, open_base, shown_progress


def run(arguments: argparse.Namespace) -> None:
    """Fits the gate, writes the pair with it, and says what it goes by."""
    if arguments.out.suffix != ".safetensors":
        raise InputError(f"{arguments.out} is no name of a pair file: end it in .safetensors.")
    if arguments.out.exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out} exists: choose another --out, or add --overwrite.")
    check_output_folder(arguments.out.parent)
    pair, header = load_pair(arguments.pair)
    words = GateWords.of_header(header, arguments.identity_words, arguments.motion_words)
    base = open_base(arguments, offload="model")
    with shown_progress("encoding prompts", "prompt") as encoded:
        gated, report = fit_prompt_gate(base, pair, words, arguments.cache_dir, encoded)
    save_pair(arguments.out, gated, {**header, "prompt_gate": report.recorded()})
    print(f"{report.line()}\nwrote {arguments.out}")
