"""`dualreal export`: a pair to LoRA files that other programs read."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..method.blend_weights import Denoising
from ..method.family_steps import even_steps, listed_steps
from ..method.pair import ROLES
from ..storage import load_pair
from ..storage.export_plan import SHIFTS, SIDES, has_own_blend, plan_export, read_blend
from ..storage.exported_files import ExportRequest, write_planned
from .options import check_output_folder


def run(arguments: argparse.Namespace) -> None:
    """Writes the files and says what is in them."""
    check_output_folder(arguments.out.parent)
    pair, header = load_pair(arguments.pair)
    header = {"source": arguments.pair.name, **header}
    fixed = None if arguments.weights is None else dict(zip(ROLES, arguments.weights, strict=True))
    blend = None if arguments.blend is None else read_blend(arguments.blend)
    if arguments.blend is not None and blend is None and not has_own_blend(pair):
        raise InputError(f"{arguments.pair.name} has no blend of its own: leave --blend out for even weights, or name one.")
    if arguments.strengths and arguments.side == "mix":
        raise InputError("A mix has one strength for both sides, which brings no blend back: write a file of each with --side both.")
    shift = SHIFTS.get(pair.config.family, 1.0) if arguments.shift is None else arguments.shift
    plan = plan_export(pair, fixed, blend, _denoising(arguments, pair.config.family, shift), shift)
    request = ExportRequest(arguments.to, arguments.dtype, arguments.overwrite)
    written = write_planned(arguments.out, pair, plan, SIDES[arguments.side], request, header)
    print("\n".join(written.lines(arguments.strengths)))


def _denoising(arguments: argparse.Namespace, family: str, shift: float) -> Denoising | None:
    if arguments.sigmas:
        if arguments.steps is not None:
            raise InputError("--steps and --sigmas both name the steps: leave one out.")
        return listed_steps(family, arguments.sigmas, shift)
    return None if arguments.steps is None else even_steps(family, arguments.steps, shift)
