"""`dualreal combine`: two LoRAs or pairs to a pair file."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..method.combine import combine, combine_headers
from ..storage import save_pair
from ..storage.lora_sides import side_of
from .options import check_output_folder


def run(arguments: argparse.Namespace) -> None:
    """Writes the pair and says what of the files is not in it."""
    if arguments.out.exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out} exists: choose another --out, or add --overwrite.")
    if arguments.out.suffix != ".safetensors":
        raise InputError(f"{arguments.out} is no name of a pair file: end it in .safetensors.")
    check_output_folder(arguments.out.parent)
    identity = side_of(arguments.identity, "identity", arguments.base, arguments.identity_low)
    motion = side_of(arguments.motion, "motion", arguments.base, arguments.motion_low)
    pair = combine(identity.pair, motion.pair)
    save_pair(arguments.out, pair, combine_headers(identity.header, motion.header))
    for line in (*identity.said, *motion.said):
        print(line)
    experts = f", for two experts ({' and '.join(pair.config.experts)})" if pair.config.experts else ""
    print(f"wrote {arguments.out}: {pair.config.family}, {pair.config.num_blocks} blocks of width {pair.config.dim}{experts}")
