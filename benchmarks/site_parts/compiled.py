"""Part `compile`: a tiny DiT with a pair through torch.compile(fullgraph=True), over a schedule of stages, in every order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
import torch._dynamo
from gpu_parts.shapes import RandomBase
from torch._dynamo.utils import counters

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment

from .measuring import Row, reason
from .models import SAMPLED, Size, attach, backend_name, call_inputs, is_conditioned, make_base, make_pair, twin

NUM_STAGES = 20
PAIRS_TRIED = ("LoRA 32", "bottleneck 64 with condition", "paper's form")
PARTS = ("whole", "block by block")
ORDERS = ("compile, attach", "attach, compile")
NOTHING = {"graphs": None, "breaks": None, "recompilations": None, "pair adds": None, "from eager": None, "detached": None}


class _Backend:
    """A backend of torch's that counts the graphs that it is given."""

    def __init__(self, name: str) -> None:
        self._compile = torch._dynamo.lookup_backend(name)
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        self.num_graphs += 1
        return self._compile(graph, inputs)


def run(quick: bool, rounds: int) -> Iterator[Row]:
    """A line for each model, pair, part that is compiled, and order."""
    backend, stages = ("eager", 3) if quick else (backend_name(), NUM_STAGES)
    pairs = PAIRS_TRIED[:1] if quick else PAIRS_TRIED
    for size, pair in itertools.product((SAMPLED[1].tiny, SAMPLED[2].tiny), pairs):
        base = make_base(size)
        for part, order in itertools.product(PARTS, ORDERS):
            head = {"model": size.title, "pair": pair, "compiled": part, "order": order, "backend": backend}
            try:
                yield Row({**head, **_try(base, size, pair, part, order, backend, stages), "note": ""})
            except Exception as error:
                breaks = None if quick or isinstance(error, InputError) else _breaks(base, size, pair, part, order)
                yield Row({**head, **NOTHING, "breaks": breaks, "note": reason(error)})
    torch._dynamo.reset()


def _try(base: RandomBase, size: Size, pair: str, part: str, order: str, backend: str, num_stages: int) -> dict[str, object]:
    """Columns of a line. A model that is compiled first is called before the pair is put on it, and that graph counts too."""
    torch._dynamo.reset()
    eager, own, counting, inputs = twin(base), twin(base), _Backend(backend), call_inputs(base, size.batch)
    stages = [step / (num_stages - 1) for step in range(num_stages)]
    weights = make_pair(base, pair).requires_grad_(False)
    with attach(eager, weights, is_conditioned(pair)) as attachment:
        expected = [_at(attachment, stage, eager, inputs) for stage in stages]
    with torch.no_grad():
        before = eager.transformer(**inputs)[0]
    added = max(_distance(output, before) for output in expected)
    if order == ORDERS[0]:
        _compile(own, part, backend=counting, fullgraph=True)
        with torch.no_grad():
            before = own.transformer(**inputs)[0]
    with attach(own, weights, is_conditioned(pair)) as attachment:
        if order == ORDERS[1]:
            _compile(own, part, backend=counting, fullgraph=True)
        found = [_at(attachment, stages[0], own, inputs)]
        num_graphs = counting.num_graphs
        found += [_at(attachment, stage, own, inputs) for stage in stages[1:]]
        recompilations = counting.num_graphs - num_graphs
    with torch.no_grad():
        after = own.transformer(**inputs)[0]
    return {
        "graphs": num_graphs,
        "breaks": 0,
        "recompilations": recompilations,
        "pair adds": f"{added:.1e}",
        "from eager": f"{max(map(_distance, found, expected)):.1e}",
        "detached": "equal" if after.equal(before) else f"{_distance(after, before):.1e}",
    }


def _breaks(base: RandomBase, size: Size, pair: str, part: str, order: str) -> int | None:
    """How often compiled code is left where that is allowed; None where that fails as well."""
    torch._dynamo.reset()
    counters.clear()
    own, inputs = twin(base), call_inputs(base, size.batch)
    if order == ORDERS[0]:
        _compile(own, part, backend="eager")
    try:
        with attach(own, make_pair(base, pair).requires_grad_(False), is_conditioned(pair)) as attachment:
            if order == ORDERS[1]:
                _compile(own, part, backend="eager")
            _at(attachment, 0.5, own, inputs)
    except Exception:
        return None
    return sum(counters["graph_break"].values())


def _compile(base: RandomBase, part: str, **settings: object) -> None:
    whole = part == PARTS[0]
    for module in (base.transformer,) if whole else (block for block, _ in base.family.blocks(base.transformer)):
        module.compile(**settings)


def _at(attachment: Attachment, stage: float, base: RandomBase, inputs: dict[str, object]) -> torch.Tensor:
    attachment.stage = stage
    with torch.no_grad():
        return base.transformer(**inputs)[0]


def _distance(output: torch.Tensor, expected: torch.Tensor) -> float:
    return float((output - expected).abs().max())
