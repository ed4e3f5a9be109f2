"""Kinds of files that we read: good samples of each, how they are read, and what a right result is."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import WanTransformer3DModel
from fuzz_media import CAPTIONS, CODECS, Sample, caption_fault, clips, photos, pixel_fault, read_captions, read_clip, read_photo
from fuzz_mutations import BYTES, SAFETENSORS, TEXT, Mutation
from safetensors.torch import save

from dualreal_core.errors import InputError
from dualreal_core.method.pair import AdapterPair, PairConfig, new_pair, per_side
from dualreal_core.storage import load_pair, save_pair
from dualreal_core.storage.inspection import describe, lines
from dualreal_core.training.recipes import DUALREAL, read_recipe
from dualreal_core.training.run import RunDirectory
from dualreal_core.training.scores import Evaluation
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

BATCH = Path(__file__).parents[1] / "workflows" / "api" / "batch.py"

@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        samples: good ones.
        read: as a command does it; the file lies alone in its folder.
        fault: what is wrong with a result, by what the good sample gives; None: nothing.
        mutations: ways to break it.
    """

    samples: Callable[[], Sequence[Sample]]
    read: Callable[[Path], object]
    fault: Callable[[object, object], str | None]
    mutations: tuple[Mutation, ...] = BYTES


TOML = """
[train]
steps = 400
learning_rate = 1e-3
optimizer = "adamw"
identity_batch = 2
timestep_bias = 1.5
evaluate_every = 50
validation_split = 0.25
save_best = true

[pair]  # the adapters
identity_kind = "lora"
motion_kind = "lora"
rank = 8
target_layers = ["to_q", "ffn.net.2"]
share_schedule = [0.4, 0.7, 0.9]
has_controller = true

[crops]
num_crops = 2
crop_margin = 0.25
"""


@cache
def transformer() -> WanTransformer3DModel:
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "text_dim": 8, "freq_dim": 8}
    return WanTransformer3DModel(patch_size=(1, 2, 2), ffn_dim=32, num_layers=2, rope_max_seq_len=32, **sizes)


def _pair(**settings: object) -> AdapterPair:
    pair = new_pair(transformer(), **{"rank": 2, "bottleneck_dim": 4, "num_groups": 2, **settings})
    with torch.no_grad():
        for index, parameter in enumerate(pair.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return pair


PROMPTS = {"identity": "dog *", "motion": None, "trigger": "*"}
PAIR_HEADER = {"base": {"name": "tiny"}, "prompts": PROMPTS, "training": {"steps": 5}, "datasets": {"motion": ["0"]}}
LORAS = {"identity_kind": "lora", "motion_kind": "lora"}


def _pairs() -> Sequence[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        path, samples = Path(folder) / "pair.safetensors", []
        for settings in ({**LORAS, "share_schedule": (0.4, 0.7)}, {"motion_condition_dim": 3}, {"motion_kind": "none"}):
            save_pair(path, _pair(**settings), PAIR_HEADER)
            samples.append((path.name, path.read_bytes()))
    return samples


def _read_pair(path: Path) -> object:
    pair, header = load_pair(path)
    lines(describe(path))
    return pair.config, {name: tensor.clone() for name, tensor in pair.state_dict().items()}, header


def _pair_fault(expected: object, got: object) -> str | None:
    if got[0] != expected[0]:
        return f"the configuration {got[0]} instead of {expected[0]}"
    return _tensor_fault(expected[1], got[1])


def _tensor_fault(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> str | None:
    if list(expected) != list(got):
        return "other tensors"
    changed = [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])]
    return f"other values in {changed[0]}" if changed else None


def _references() -> Sequence[Sample]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"down_linear.weight": (4, 16), "down_linear.bias": (4,), "up_linear.weight": (16, 4), "up_linear.bias": (16,)}
    places = product(range(2), ("id", "motion"), ("attn", "ff"))
    names = [f"transformer_blocks.{block}.{role}_{site}_adapter" for block, role, site in places]
    shapes = {f"{name}.{part}": size for name in names for part, size in sizes.items()}
    values = torch.randn(sum(math.prod(shape) for shape in shapes.values()), generator=generator)
    parts = values.split([math.prod(shape) for shape in shapes.values()])
    tensors = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    samples = []
    for is_zip in (True, False):
        file = io.BytesIO()
        torch.save(tensors, file, _use_new_zipfile_serialization=is_zip)
        content = file.getvalue()
        if not is_zip:  # it names the storage by where it lay in memory
            content = re.sub(rb"\d{14,}", lambda key: b"7" * len(key[0]), content)
        samples.append((f"final{'' if is_zip else ' legacy'}.pth", content))
    return samples


def _reference_fault(expected: object, got: object) -> str | None:
    """The old form of .pth has no checksum: there, values that a flipped bit changed are still numbers."""
    if not all(tensor.isfinite().all() for tensor in got[1].values()):
        return "values that are no numbers"
    return None if got[2]["source"].startswith("final legacy") else _pair_fault(expected, got)


def _loras() -> Sequence[Sample]:
    generator = torch.Generator().manual_seed(0)
    config = {"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"blocks.0.attn1.to_q": 2}}
    forms = {
        "transformer.blocks.{}.attn1.to_q": ("lora_A", "lora_B", {"lora_adapter_metadata": json.dumps(config)}),
        "lora_unet_blocks_{}_self_attn_q": ("lora_down", "lora_up", {"ss_network_alpha": "4", "ss_network_dim": "2"}),
    }
    samples = []
    for name, (down, up, metadata) in forms.items():
        tensors = {}
        for block in range(3):
            tensors[f"{name.format(block)}.{down}.weight"] = torch.randn(2, 16, generator=generator)
            tensors[f"{name.format(block)}.{up}.weight"] = torch.randn(16, 2, generator=generator)
            if down == "lora_down" and block:
                tensors[f"{name.format(block)}.alpha"] = torch.tensor(1.0)
        samples.append(("lora.safetensors", save(tensors, metadata)))
    return samples


def _read_lora(path: Path) -> object:
    description = describe(path)
    json.dumps(description, allow_nan=False)
    lines(description)
    return description


def _lora_fault(expected: object, got: object) -> str | None:
    if got["kind"] != "lora":  # a pair under the name of a LoRA
        return None
    whole = [layer for layer in got["layers"] if not layer["is_broken"]]  # the others are named as such
    numbers = [layer[name] for layer in whole for name in ("scaling", "up_norm", "rank", "in_dim", "out_dim") if name in layer]
    return None if all(math.isfinite(number) for number in numbers) else "numbers that are none"


ASKED = {"training": {"recipe": "dualreal", "steps": 5}, "pair": {"identity_rank": 2}, "base": {"name": "tiny"}}


def _run_files(folder: Path) -> dict[str, bytes]:
    directory, pair = RunDirectory(folder), _pair(**LORAS)
    state = RunState.start(pair, TrainSettings())
    with directory.opened(ASKED, False):
        for step in range(1, 4):
            directory.add_metrics({"step": step, "role": "identity", "loss": 1 / step, "preservation_loss": None, "grad_norm": 0.5})
        state.step = 3
        directory.save(state, SimpleNamespace(pair=pair))
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in ("checkpoint.pt", "run.json", "metrics.jsonl")}


@cache
def _run_samples() -> Sequence[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        files = _run_files(Path(folder))
    archive = io.BytesIO()  # under a name that is always the same
    torch.save(torch.load(io.BytesIO(files["checkpoint.pt"]), weights_only=True), archive)
    return tuple(sorted({**files, "checkpoint.pt": archive.getvalue()}.items()))


def _read_run(path: Path) -> object:
    for name, content in _run_samples():
        if name != path.name:
            (path.parent / name).write_bytes(content)
    directory, pair = RunDirectory(path.parent), _pair(**LORAS)
    state = RunState.start(pair, TrainSettings())
    with directory.opened(ASKED, True):
        directory.load(state, SimpleNamespace(pair=pair))
        steps, evaluations = directory.metrics(), directory.evaluations()
        directory.evaluated_losses()
    return state.step, {name: tensor.clone() for name, tensor in pair.state_dict().items()}, steps, evaluations


def _run_fault(expected: object, got: object) -> str | None:
    if got[0] != expected[0] or not all(isinstance(one, Evaluation) for one in got[3]):
        return f"the step {got[0]}"
    if not all(isinstance(record["step"], int) and record["step"] <= got[0] for record in got[2]):
        return f"steps {[record['step'] for record in got[2]]} in the metrics"
    return _tensor_fault(expected[1], got[1])


def _read_toml(path: Path) -> object:
    recipe = read_recipe(path, DUALREAL)
    try:
        new_pair(transformer(), recipe.train.seed, **recipe.pair)
    except ValueError as error:  # as in `Training`
        raise InputError(f"{path.name}: the pair cannot be made: {error}") from error
    return recipe


def _toml_fault(expected: object, got: object) -> str | None:
    numbers = {**asdict(got.train), **got.pair, "crop_margin": got.crop_margin}
    flat = [(name, one) for name, value in numbers.items() for one in (value if isinstance(value, tuple) else (value,))]
    # clipping at infinity is none
    odd = [f"{name} = {value}" for name, value in flat if isinstance(value, float) and not math.isfinite(value) and name != "clip_norm"]
    unknown = set(per_side(got.pair)) - {item.name for item in fields(PairConfig)}
    return odd[0] if odd else f"the settings {unknown}" if unknown else None


@cache
def batch_client():
    """The client of workflows/api as a module; it is a script for users without this package."""
    spec = importlib.util.spec_from_file_location("batch", BATCH)
    module = sys.modules["batch"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROWS = [["dogs/rex", "dance", "a dog, dancing"], ["dogs/rex", "jump", 'a dog "jumping"'], ["cats/tom", "dance", "a cat; asleep"]]


def _csv_samples() -> Sequence[Sample]:
    client, texts = batch_client(), []
    for sign, end in ((",", "\n"), (";", "\r\n"), ("\t", "\n")):
        rows = [[f'"{value.replace(chr(34), chr(34) * 2)}"' if set(value) & set(',;"') else value for value in row] for row in ROWS]
        texts.append(end.join(sign.join(row) for row in [client.COLUMNS, *rows]) + end)
    return [("list.csv", texts[0].encode()), ("list.csv", texts[1].encode("utf-8-sig")), ("list.csv", texts[2].encode("utf-16"))]


def _json_samples() -> Sequence[Sample]:
    rows = [dict(zip(batch_client().COLUMNS, row, strict=True)) for row in ROWS]
    return [("list.json", json.dumps(rows, indent=1).encode()), ("graph.json", (BATCH.parent / "5_batch.json").read_bytes())]


def _read_list(path: Path) -> object:
    client = batch_client()
    graph = client.read_graph(path if path.name == "graph.json" else BATCH.parent / "5_batch.json")
    entries = [] if path.name == "graph.json" else client.read_list(path)
    entry = client.Entry("001 rex", "rex", *ROWS[0])
    return [client.fill(graph, one) for one in entries or [entry]], entries


def _list_fault(expected: object, got: object) -> str | None:
    entries = got[1]
    names = [entry.name for entry in entries]
    if len({name.casefold() for name in names}) < len(names):
        return "two entries of one name"
    values = [value for entry in entries for value in (entry.identity, entry.motion, entry.prompt)]
    odd = [value for value in values if not value.strip() or "\0" in value or "\ufffd" in value]
    return f"the value {odd[0]!r}" if odd else None


KINDS: dict[str, Kind] = {
    **{name: Kind(lambda name=name: photos(name), read_photo, pixel_fault) for name in ("png", "jpeg", "webp")},
    **{name: Kind(lambda name=name: clips(name), read_clip, pixel_fault) for name in CODECS},
    "captions": Kind(lambda: [(name, text.encode()) for name, text in CAPTIONS.items()], read_captions, caption_fault, TEXT),
    "toml": Kind(lambda: [("recipe.toml", TOML.encode())], _read_toml, _toml_fault, TEXT),
    "pair": Kind(_pairs, _read_pair, _pair_fault, SAFETENSORS),
    "pth": Kind(_references, _read_pair, _reference_fault),
    "lora": Kind(_loras, _read_lora, _lora_fault, SAFETENSORS),
    "run": Kind(_run_samples, _read_run, _run_fault, TEXT),
    "csv": Kind(_csv_samples, _read_list, _list_fault, TEXT),
    "json": Kind(_json_samples, _read_list, _list_fault, TEXT),
}


def refusals() -> tuple[type[Exception], ...]:
    """What tells a user in one sentence that a file is not usable."""
    return InputError, batch_client().BatchError


def quiet() -> redirect_stderr:
    """Keeps libraries' warnings on damaged files off the screen."""
    return redirect_stderr(io.StringIO())
