"""Part `counts`: kernels and copies between host and device that a pair adds to a call, on the tests' stand-in for an accelerator.

The device is known to a whole process once it is there, so the counting is done in one of its own: `python -m site_parts.counts`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord
from dualreal_core.method.pair import iterate_sides

from .measuring import Row, reason
from .models import SAMPLED, Size, attach, call_inputs, is_conditioned, make_base, make_pair

ROOT = Path(__file__).resolve().parents[2]
NUM_BLOCKS = 8
ROWS = 2
VIEWS = frozenset((
    "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze",
    "detach", "alias", "split", "split_with_sizes", "chunk", "as_strided", "unbind", "lift", "lift_fresh", "unfold", "flatten",
    "unflatten", "empty", "empty_like", "new_empty", "empty_strided", "is_same_size", "_has_compatible_shallow_copy_type",
))  # fmt: skip
"""What launches no kernel."""
COUNTED = ("kernels", "copies to the device", "copies to the host", "host operations")


@dataclass(frozen=True)
class Case:
    """A pair, and what is asked of it: strengths of the rows, strengths of the sides that are not 1, a record of the weights."""

    pair: str
    rows: tuple[float, ...] | None = None
    strengths: tuple[float, float] = (1.0, 1.0)
    is_recorded: bool = False


CASES = {
    "LoRA 32": Case("LoRA 32"),
    "LoRA 32, recorded": Case("LoRA 32", is_recorded=True),
    "LoRA 32, guidance": Case("LoRA 32", rows=(0.0, 1.0)),
    "LoRA 32, guidance, strengths, recorded": Case("LoRA 32", rows=(0.0, 1.0), strengths=(0.8, 1.0), is_recorded=True),
    "bottleneck 64": Case("bottleneck 64"),
    "bottleneck 64, recorded": Case("bottleneck 64", is_recorded=True),
    "bottleneck 64, guidance": Case("bottleneck 64", rows=(0.0, 1.0)),
    "bottleneck 64 with condition": Case("bottleneck 64 with condition"),
    "paper's form": Case("paper's form"),
}


def run(quick: bool, rounds: int) -> Iterator[Row]:
    """A line for each case: what the pair adds to the base's own call, whole and by site. Nothing of it is noise."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "core"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "site_parts.counts", *["--quick"] * quick]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    for name, counts in json.loads(done.stdout.splitlines()[-1]).items():
        if "note" in counts:
            yield Row({"arm": name, "sites": None, **dict.fromkeys(COUNTED), "kernels / site": None, "note": counts["note"]})
            continue
        added = {kind: counts["with"][kind] - counts["base"][kind] for kind in COUNTED}
        by_site = f"{added['kernels'] / counts['sites']:.2f}"
        yield Row({"arm": name, "sites": counts["sites"], **added, "kernels / site": by_site, "note": ""}, counts)


class _Counting(TorchDispatchMode):
    """What is run on the device, and what is read from it."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.counts = device, Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        if name in VIEWS:
            return result
        given, made = (
            {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)} for tree in ((args, kwargs), result)
        )
        crosses = name in ("_to_copy", "copy_", "_copy_from") and given | made == {"cpu", self.device}
        if name == "_local_scalar_dense":
            self.counts["copies to the host" if self.device in given else "host operations"] += 1
        elif crosses:
            leaves = args[0].device.type == "cpu" if name == "copy_" else args[0].device.type == self.device
            self.counts["copies to the host" if leaves else "copies to the device"] += 1
        else:
            self.counts["kernels" if self.device in given | made else "host operations"] += 1
        return result


def count_all(size: Size) -> dict[str, dict[str, object]]:
    """Counts of every case, without and with the pair; to be called once in a process."""
    import other_device

    to_device: list[int] = []  # of numbers and lists that torch makes tensors of, which no operation shows
    copy_from = other_device._copy_from

    def copied(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        if source.device.type == "cpu" and target.device.type != "cpu":
            to_device.append(1)
        return copy_from(source, target, non_blocking)

    other_device._copy_from = copied
    other_device.register()
    base = make_base(size)
    inputs = {
        name: value.to(other_device.NAME) if isinstance(value, torch.Tensor) else value for name, value in call_inputs(base, ROWS).items()
    }
    base.transformer.to(other_device.NAME)

    def count(attachment: Attachment | None = None) -> dict[str, int]:
        def call(stage: float) -> None:
            if attachment is not None:
                attachment.stage = stage
            base.transformer(**inputs)
            if attachment is not None:
                attachment.finish_call()

        with torch.no_grad():
            call(0.1)
            to_device.clear()
            with _Counting(other_device.NAME) as counting:
                call(0.2)
        counting.counts["copies to the device"] += len(to_device)
        return {kind: counting.counts[kind] for kind in COUNTED}

    plain, found = count(), {}
    for name, case in CASES.items():
        try:
            pair = make_pair(base, case.pair).requires_grad_(False)
            attachment = attach(base, pair.to(other_device.NAME), is_conditioned(case.pair))
            with attachment:
                attachment.strengths = dict(zip(attachment.strengths, case.strengths, strict=True))
                if attachment.condition is not None:
                    attachment.condition = attachment.condition.to(other_device.NAME)
                if case.rows is not None:
                    attachment.row_strengths = case.rows
                if case.is_recorded:
                    attachment.record = BlendRecord()
                sites = len({(index, site) for _, index, site, _ in iterate_sides(pair)})
                found[name] = {"sites": sites, "base": plain, "with": count(attachment)}
        except Exception as error:
            found[name] = {"note": reason(error)}
    return found


if __name__ == "__main__":
    wan = SAMPLED[1].tiny if "--quick" in sys.argv else SAMPLED[1]
    shape = replace(wan.shape, config={**wan.shape.config, "num_layers": NUM_BLOCKS}, latents=(16, 2, 8, 8))
    print(json.dumps(count_all(replace(wan, shape=shape))))
