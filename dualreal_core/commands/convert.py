"""`dualreal convert`: a LoRA file of one program in the names and form of another."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..storage.export_plan import SIDES, plan_export
from ..storage.exported_files import ExportRequest, write_planned
from ..storage.lora_sides import is_pair_file, side_of_lora
from .options import check_output_folder


def run(arguments: argparse.Namespace) -> None:
    """Reads the file, writes it anew, and says what was left out."""
    check_output_folder(arguments.out.parent)
    if is_pair_file(arguments.lora):
        raise InputError(f"{arguments.lora.name} is a pair file: dualreal export writes its sides as LoRA files.")
    side = side_of_lora(arguments.lora, "identity", arguments.base)
    for line in side.said:
        print(line)
    request = ExportRequest(arguments.to, arguments.dtype, arguments.overwrite)
    written = write_planned(arguments.out, side.pair, plan_export(side.pair), SIDES["identity"], request, side.header)
    print("\n".join(written.lines()))
