"""Pairs out as ordinary LoRA files: a side, or a fixed mix of both, in the names and forms that other programs read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save

from ..errors import InputError
from ..families.layer_naming import Naming, places_of_blocks
from ..files.atomic import atomic_path
from ..files.provenance import provenance
from ..method.experts import experts_of
from ..method.layer_updates import Parts, layer_updates, of_rows
from ..method.pair import ROLES, AdapterPair, Role
from .lora_forms import ADAPTER_CONFIG_NAME, ADAPTER_MODEL_NAME, DTYPES, FORMS, LoraForm, folder_config, form_metadata

EXPORT_KEY = "dualreal_export"
TRIGGER_KEY = "modelspec.trigger_phrase"
SUFFIX = ".safetensors"
KINDS = {"diff": "full differences", "lokr_w1": "LoKr", "hada_w1_a": "LoHa", "diff_b": "biases"}
"""By one of its parts, the name of an update that is no LoRA."""

Weights = Mapping[Role, float | Sequence[float]]
"""Of the sides that go into a file, in units of the even weight: one number, or one for each group of blocks of all experts."""


@dataclass(frozen=True)
class WrittenLora:
    """A LoRA file, or folder, that was written.

    Attributes:
        expert: that it is for; '' of a model of one.
        num_layers: how many layers it changes, as its names count them.
        ranks: the lowest and the highest; 0 where none of them is a LoRA.
        kinds: of updates that are no LoRA, with the number of layers that have them.
        num_bytes: of the file.
    """

    path: Path
    expert: str
    num_layers: int
    ranks: tuple[int, int]
    kinds: Mapping[str, int] = field(default_factory=dict)
    num_bytes: int = 0


@dataclass(frozen=True)
class PreparedLora:
    """The files of an export before any of them is written.

    Attributes:
        contents: by path, the file's bytes and the ranks of its layers.
    """

    form: LoraForm
    files: list[WrittenLora]
    contents: Mapping[Path, tuple[bytes, Mapping[str, int]]]

    def write(self) -> list[WrittenLora]:
        """Writes them.

        Raises:
            InputError: one cannot be written.
        """
        for path, (content, ranks) in self.contents.items():
            if self.form.is_folder:
                with atomic_path(path / ADAPTER_CONFIG_NAME) as temporary:
                    temporary.write_text(folder_config(ranks), encoding="utf-8")
            with atomic_path(path / ADAPTER_MODEL_NAME if self.form.is_folder else path) as temporary:
                temporary.write_bytes(content)
        return self.files


def export_lora(
    path: Path, pair: AdapterPair, weights: Weights, form: str = "comfyui", header: Mapping[str, object] | None = None,
    blend: str = "", dtype: str = "fp32", overwrites: bool = False, beside: Mapping[str, Mapping[str, Parts]] | None = None,
) -> list[WrittenLora]:  # fmt: skip
    """Writes sides of a pair at fixed weights as a LoRA; see `prepare_lora`.

    Raises:
        InputError: a side has no such form, the file is there, or it cannot be written.
    """
    return prepare_lora(path, pair, weights, form, header, blend, dtype, overwrites, beside).write()


def prepare_lora(
    path: Path, pair: AdapterPair, weights: Weights, form: str = "comfyui", header: Mapping[str, object] | None = None,
    blend: str = "", dtype: str = "fp32", overwrites: bool = False, beside: Mapping[str, Mapping[str, Parts]] | None = None,
) -> PreparedLora:  # fmt: skip
    """Sides of a pair at fixed weights as a LoRA, of a pair for two experts one for each.

    A mix is exact for LoRA: ranks stand side by side. All factors are folded into the matrices, so that readers that know no metadata
    compute the same.

    Args:
        path: of the file; `peft` writes a folder. Experts add `_high_noise` and `_low_noise`.
        form: one of `FORMS`.
        header: of the pair, for trigger words, sources and consent.
        blend: in words, kept in the metadata.
        dtype: one of `DTYPES`.
        beside: by expert, parts of layers outside of the pair's reach, by their paths in ComfyUI's DiT; only for forms of its names.

    Raises:
        InputError: a side has no such form, or the file is there.
    """
    chosen = _chosen(form, dtype)
    experts = pair.config.experts or ("",)
    files = [_path_of(Path(path), chosen, expert) for expert in experts]
    parts = {file: (expert, part) for file, expert, part in zip(files, experts, experts_of(pair), strict=True)}
    taken = next((file for file in files if _is_there(file, chosen)), None)
    if taken is not None and not overwrites:
        raise InputError(f"{taken} exists: choose another name, or have it overwritten.")
    contents, written = {}, []
    for index, (file, (expert, part)) in enumerate(parts.items()):
        own = _of_expert(pair, weights, part, index)
        if not own:
            continue
        tensors, ranks = lora_tensors(part, own, chosen, DTYPES[dtype])
        for path, update in ((beside or {}).get(expert, {}) if chosen.host == "comfy" else {}).items():
            _put(tensors, ranks, path, update, chosen, DTYPES[dtype])
        metadata = {**_common_metadata(header or {}, own, blend, expert), **form_metadata(chosen, ranks), "format": "pt"}
        content, sizes = save(tensors, metadata), ranks.values() or [0]
        contents[file] = content, ranks
        layers, kinds = _counted(tensors, chosen)
        written.append(WrittenLora(file, expert, layers, (min(sizes), max(sizes)), kinds, len(content)))
    if not contents:
        raise InputError(f"The pair has no {' or '.join(weights)} side, or all weights are 0: there is nothing to write.")
    return PreparedLora(chosen, written, contents)


def lora_tensors(
    pair: AdapterPair, weights: Mapping[Role, Sequence[float]], form: LoraForm, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Tensors of a file by their names in it, and the rank of each LoRA layer by its path in the host's DiT.

    Args:
        pair: for one DiT.
        weights: of each group of blocks, by role.

    Raises:
        InputError: see `layer_updates`; or the form cannot hold an update, or the dtype a value.
    """
    config = pair.config
    names, updates = Naming(config.family, form.host), layer_updates(pair, weights)
    known = [(block, layer) for side in pair.sides.values() for block, layer in map(_place, side)]
    places = places_of_blocks(config.family, config.num_blocks, known)
    tensors, ranks = {}, {}
    for (block, layer), update in updates.items():
        lacking = next((part for part in update if part not in form.parts), None)
        if lacking is not None:
            raise InputError(
                f"{layer} in block {block} is changed by {KINDS.get(lacking, 'LoRA')}, which files for {form.readers} do not hold: "
                "write 'comfyui'."
            )
        listed, number = places[block]
        for part in names.parts(listed, layer):
            own = update if part.is_whole else of_rows(update, part.rows(*_widths(update)), (block, layer))
            _put(tensors, ranks, f"{names.block_list(listed)}.{number}.{part.path}", own, form, dtype)
    return tensors, ranks


def weights_by_group(pair: AdapterPair, weights: Weights) -> dict[Role, list[float]]:
    """The same, one number for each group of blocks of all experts.

    Raises:
        InputError: there are more or fewer.
    """
    total = pair.config.total_groups
    listed = {role: [float(own)] * total if isinstance(own, int | float) else list(own) for role, own in weights.items()}
    for role, own in listed.items():
        if len(own) != total:
            raise InputError(f"{len(own)} weights of the {role} were given for {total} groups of blocks: give one, or one for each.")
    return listed


def marked(path: Path, mark: str) -> Path:
    """The name of a file of several, which differ in marks."""
    suffix = SUFFIX if path.name.endswith(SUFFIX) else ""
    return path.with_name(f"{path.name.removesuffix(suffix).removesuffix('_')}_{mark}{suffix}")


def _of_expert(pair: AdapterPair, weights: Weights, part: AdapterPair, index: int) -> dict[Role, list[float]]:
    """The weights of one expert's groups, of the sides that it has. In a model of one DiT a side that is not there is refused later."""
    groups = slice(index * pair.config.num_groups, (index + 1) * pair.config.num_groups)
    listed = {role: own[groups] for role, own in weights_by_group(pair, weights).items()}
    may_lack = bool(pair.config.experts)
    return {role: listed[role] for role in ROLES if role in listed and any(listed[role]) and (role in part.sides or not may_lack)}


def _place(key: str) -> tuple[int, str]:
    block, _, name = key.partition("-")
    return int(block), name.replace("/", ".")


def _put(
    tensors: dict[str, torch.Tensor], ranks: dict[str, int], path: str, update: Parts, form: LoraForm, dtype: torch.dtype
) -> None:
    """Adds the tensors of one layer."""
    name = form.layer(path)
    for kind, tensor in update.items():
        tensors[f"{name}.{form.parts[kind]}"] = _cast(tensor, dtype, path)
    if "down" in update:
        ranks[path] = len(update["down"])
        if form.has_alpha:
            tensors[f"{name}.alpha"] = form.alpha(ranks[path])


def _counted(tensors: Iterable[str], form: LoraForm) -> tuple[int, dict[str, int]]:
    """How many layers tensors of these names change, and how many by each kind of update that is no LoRA."""
    layers, kinds = set(), Counter()
    for name in tensors:
        part = next((part for part, suffix in form.parts.items() if name.endswith(f".{suffix}")), None)
        if part is not None:
            layers.add(name.removesuffix(f".{form.parts[part]}"))
            kinds.update([KINDS[part]] if part in KINDS else [])
    return len(layers), dict(kinds)


def _widths(update: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    if "lokr_w1" in update:
        left, right = update["lokr_w1"].shape, update["lokr_w2"].shape
        return left[1] * right[1], left[0] * right[0]
    rows = next(update[part] for part in ("up", "hada_w1_a", "diff", "diff_b") if part in update)
    columns = next((update[part] for part in ("down", "hada_w1_b", "diff") if part in update), rows)
    return columns.shape[-1], rows.shape[0]


def _cast(tensor: torch.Tensor, dtype: torch.dtype, path: str) -> torch.Tensor:
    cast = tensor.to(dtype).contiguous()
    if not cast.isfinite().all():
        raise InputError(f"The update of {path} holds values that {str(dtype).removeprefix('torch.')} cannot: write fp32 or bf16.")
    return cast


def _common_metadata(header: Mapping[str, object], weights: Mapping[Role, Sequence[float]], blend: str, expert: str) -> dict[str, str]:
    """Trigger words, and a record of where the file comes from."""
    prompts = header.get("prompts") or {}
    words = {"identity": prompts.get("trigger") or prompts.get("identity"), "motion": prompts.get("motion")}
    triggers = ", ".join(dict.fromkeys(str(words[role]) for role in weights if words[role]))
    record = {
        "weights": {role: [round(one, 6) for one in own] for role, own in weights.items()},
        "blend": blend,
        "expert": expert,
        "pair_digest": header.get("digest"),
        **{name: header.get(name) for name in ("source", "sources", "training", "datasets", "base", "consent")},
        "provenance": provenance(),
    }
    known = {name: value for name, value in record.items() if value not in (None, "", {}, [])}
    return {EXPORT_KEY: json.dumps(known, sort_keys=True), **({TRIGGER_KEY: triggers} if triggers else {})}


def _chosen(form: str, dtype: str) -> LoraForm:
    if form not in FORMS:
        raise InputError(f"There is no form {form!r}: choose one of {', '.join(FORMS)}.")
    if dtype not in DTYPES:
        raise InputError(f"There is no dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    return FORMS[form]


def _path_of(path: Path, form: LoraForm, expert: str) -> Path:
    if form.is_folder:
        path = path.with_name(path.name.removesuffix(SUFFIX))
    elif path.suffix != SUFFIX:
        raise InputError(f"{path} is no name of a LoRA file: end it in {SUFFIX}.")
    return marked(path, expert.replace("-", "_")) if expert else path


def _is_there(path: Path, form: LoraForm) -> bool:
    return any((path / name).exists() for name in (ADAPTER_MODEL_NAME, ADAPTER_CONFIG_NAME)) if form.is_folder else path.exists()
