"""The pair file: one `.safetensors` with a JSON header under the metadata key `dualreal`.

Header, in all format versions (`renames` has the former names of fields): `format_version`, `config` (the fields of
`PairConfig`), `digest` (sha256 of the weights), `base` (name and fingerprint), `prompts` (identity and motion, with their
triggers), `training` (settings and steps), `datasets` (sha256 of each file used, per role), `consent` (the user's note),
`provenance` (date, library versions); since version 5 `seal` (sha256 of the rest of the header). Files of version 6 are of pairs
for several experts, whose blocks are counted through in the names of tensors, those of version 7 of pairs with adapters out of LoRA
files of other forms than the plain one (LoKr, DoRA, OFT ...), whose forms are in the names of tensors, those of version 8 of pairs
with a prompt gate, whose tensors are `gate.*` and whose width of text is in `config`; all other pairs are still written as version 5.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError
from ..families import CANONICAL
from ..files.atomic import atomic_path
from ..files.provenance import provenance
from ..method.layer_forms import FormAdapter
from ..method.pair import ROLES, AdapterPair, LoraShape, LoraShapes, PairConfig, Role, is_formed_side, split_key
from .reference import is_reference, pair_from_reference, read_reference
from .renames import pair_fields, tensor_name, training_fields

FORMAT_VERSION = 8
SCHEDULE_ALONE_VERSION = 2
"""From this version on a share schedule counts without a controller too."""
SEALED_VERSION = 5
"""From this version on the header holds a checksum of itself."""
EXPERTS_VERSION = 6
"""From this version on a pair may be for several experts."""
FORMS_VERSION = 7
"""From this version on adapters of a LoRA side may be of other forms than the plain low-rank one."""
GATE_VERSION = 8
"""From this version on a pair may have a prompt gate."""
HEADER_KEY = "dualreal"
SIDES = "sides."
OWN_PARTS = ("controller.", "gate.")

Header = dict[str, object]


def save_pair(path: Path, pair: AdapterPair, header: Mapping[str, object] | None = None) -> None:
    """Writes a pair atomically, weights in the dtype they have.

    Args:
        header: further header fields: base, prompts, training, datasets, consent.

    Raises:
        InputError: the file cannot be written.
        ValueError: the pair is a part of one for several experts.
    """
    if pair.controller is not None and pair.controller.out.out_features != pair.config.total_groups:
        raise ValueError("A part of a pair is no pair of its own, as the StageBlender is of all experts: save the whole, or join_experts.")
    tensors = {name.removeprefix(SIDES): tensor.detach().cpu().contiguous() for name, tensor in pair.state_dict().items()}
    version = EXPERTS_VERSION if pair.config.experts else EXPERTS_VERSION - 1
    if any(is_formed_side(pair, role) for role in ROLES):
        version = FORMS_VERSION
    if pair.gate is not None:
        version = GATE_VERSION
    own = {"format_version": version, "config": pair.config.recorded(), "digest": digest(tensors)}
    full = json.loads(json.dumps({"provenance": provenance(), **(header or {}), **own}))
    sealed = {**full, "seal": seal(full)}
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, {HEADER_KEY: json.dumps(sealed, sort_keys=True)}))


def read_header(path: Path) -> Header:
    """The JSON header of a pair file, without its weights.

    Raises:
        InputError: no such file, damaged, or no pair file.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if HEADER_KEY not in metadata:
            raise InputError(f"{path} is no DualReal pair (it has no '{HEADER_KEY}' header): give a file that DualReal wrote.")
    try:
        header = json.loads(metadata[HEADER_KEY])
        version = header["format_version"]
        if type(version) is not int:
            raise ValueError(f"its format_version is {version!r}")
        for name in ("prompts", "datasets"):
            if not isinstance(header.get(name) or {}, dict):
                raise ValueError(f"its {name} are {header[name]!r}")
        if version > FORMAT_VERSION:
            raise InputError(f"{path} has format version {version}, newer than {FORMAT_VERSION}: update DualReal to read it.")
        if (version >= SEALED_VERSION or "seal" in header) and header.get("seal") != seal(header):
            raise ValueError("it does not match its checksum")
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} has a damaged '{HEADER_KEY}' header ({_first_line(error)}): use another copy.") from error
    return {**header, "training": training_fields(header["training"])} if "training" in header else header


def load_pair(path: Path) -> tuple[AdapterPair, Header]:
    """Reads a pair and its header; also takes the reference's `.pth` and its keys in a `.safetensors`.

    Raises:
        InputError: no such file, damaged, not a pair, or its tensors do not fit its header.
    """
    path = Path(path)
    if path.suffix in {".pth", ".pt", ".bin", ".ckpt"}:
        return pair_from_reference(read_reference(path), path), {"format_version": 0, "source": path.name}
    with _opened(path) as file:
        # cloned because a pair that stays mapped to its file changes, or ends the process, when that is written over
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    if is_reference(tensors):
        return pair_from_reference(tensors, path), {"format_version": 0, "source": path.name}
    header = read_header(path)
    try:
        fields = pair_fields(header["config"])
        lists = {name: tuple(fields.get(name, ())) for name in ("target_layers", "share_schedule", "experts")}
        if header["format_version"] < SCHEDULE_ALONE_VERSION and not fields.get("has_controller", True):
            lists["share_schedule"] = ()
        config = PairConfig(**{**fields, **lists})
        if config.family not in CANONICAL:
            raise ValueError(f"its family is {config.family!r}")
        if header.get("digest") not in (None, digest(tensors)):
            raise ValueError("its weights do not match their digest")
        tensors = {tensor_name(name): tensor for name, tensor in tensors.items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError("some of its weights are no finite numbers, which would make every video black")
        with torch.device("meta"):  # a header may ask for any size
            pair = AdapterPair(config, _site_keys(config, tensors), _lora_shapes(config, tensors))
        named = {name if name.startswith(OWN_PARTS) else SIDES + name: tensor.float() for name, tensor in tensors.items()}
        pair.load_state_dict(named, assign=True)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        reason = _first_line(error)
        raise InputError(f"{path} does not hold what its header says ({reason}): it was changed or damaged; use another copy.") from error
    return pair, header


def _opened(path: Path):
    path = Path(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {state}: check the path of the pair file.")
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        reason = _first_line(error)
        raise InputError(
            f"{path} is no complete safetensors file ({reason}): it is truncated or something else; use another copy."
        ) from error


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, shapes, dtypes and bytes of all tensors."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def seal(header: Header) -> str:
    """sha256 of a header as JSON, without the seal."""
    rest = {name: value for name, value in header.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _site_keys(config: PairConfig, tensors: dict[str, torch.Tensor]) -> dict[Role, list[str]]:
    """Keys of the bottlenecks in a file; a side may be there for one expert alone.

    Raises:
        ValueError: some block has other sites than the family's blocks have.
    """
    kinds = [{site.name for site in block_list.sites} for block_list in CANONICAL[config.family].block_lists]
    sides = {role: _adapter_keys(config, tensors, role) for role in ROLES if config.kind(role).startswith("bottleneck")}
    for keys in sides.values():
        sites: dict[int, set[str]] = {}
        for block, site in map(split_key, keys):
            sites.setdefault(block, set()).add(site)
        for first in range(0, config.total_blocks, config.num_blocks):
            blocks = range(first, first + config.num_blocks)
            lacking = next((block for block in blocks if sites.get(block) not in kinds), None)
            if lacking is not None and (not config.experts or any(block in sites for block in blocks)):
                raise ValueError(f"block {lacking} lacks adapters")
    if not config.experts and len({tuple(keys) for keys in sides.values()}) > 1:
        raise ValueError("its two sides have different sites")
    return sides


def _lora_shapes(config: PairConfig, tensors: dict[str, torch.Tensor]) -> LoraShapes:
    shapes = {}
    for role in ROLES:
        if config.kind(role) == "lora":
            states: dict[str, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith(f"{role}."):
                    _, key, rest = name.split(".", 2)
                    states.setdefault(key, {})[rest] = tensor
            shapes[role] = {key: _lora_shape(states[key]) for key in _adapter_keys(config, tensors, role)}
    return shapes


def _lora_shape(state: Mapping[str, torch.Tensor]) -> LoraShape:
    if "strength" in state:
        return FormAdapter.of_state({name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()})
    down = state["down.weight"]
    return down.shape[1], state["up.weight"].shape[0], down.shape[0]


def _adapter_keys(config: PairConfig, tensors: dict[str, torch.Tensor], role: str) -> list[str]:
    keys = {name.split(".")[1] for name in tensors if name.startswith(f"{role}.")}
    for key in keys:
        if not 0 <= int(key.partition("-")[0]) < config.total_blocks:
            raise ValueError(f"it has {role} adapters for block {key.partition('-')[0]} of {config.total_blocks}")
    return sorted(keys, key=lambda key: (int(key.partition("-")[0]), key))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
