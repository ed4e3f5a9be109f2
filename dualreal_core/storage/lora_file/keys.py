"""Keys of a LoRA file: which layer a tensor is of, as the file calls it, and which part of the layer's update it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from .resolve import without_prefix

_NAMED = r"(?:\.(?P<adapter>(?!weight|bias$|(?:input_)?scale)[^.]+(?:\.\d+)*))?"
"""The name of an adapter, as peft puts it behind that of a part."""
_PATTERNS: tuple[tuple[str, str], ...] = (
    (rf"[._]lora_(?P<part>A|B|a|b|down|up){_NAMED}(?P<kind>\.weight|\.bias)?", "lora"),
    (r"(?:[._]lora|\.lora_linear_layer)\.(?P<part>A|B|down|up)\.weight", "lora"),
    (r"\.lora_(?P<part>mid)\.weight", "lora"),
    (r"\.(?P<part>alpha|lora_alpha|network_alpha)", ""),
    (r"\.(?P<part>scalar|scale|scaling|lora_scale|lora_scaling)", ""),
    (r"\.(?P<part>rank|r|lora_rank|lora_r|network_dim|lora_dropout)", "settings"),
    (rf"\.(?P<part>dora_scale|lora_magnitude_vector|magnitude){_NAMED}(?:\.weight)?", ""),
    (r"\.oft_R\.(?P<part>scaled_oft)", ""),
    (rf"\.(?P<part>lokr_(?:w[12](?:_[ab])?|t[12])|hada_(?:w[12]_[ab]|t[12])){_NAMED}(?:\.weight)?", ""),
    (rf"\.(?P<part>oft_blocks|oft_diag|rescale|oft_R|boft_R|boft_s|ia3_l|on_input){_NAMED}(?:\.weight)?", ""),
    (r"\.(?P<part>(?:a|b)[12]|bm)\.weight", "glora"),
    (r"\.(?P<part>diff|diff_b|w_norm|b_norm|set_weight|reshape_weight)", ""),
    (r"\.(?P<part>weight|bias)", ""),
)
_KEYS = [(re.compile(rf"(?P<layer>.+?){pattern}"), group) for pattern, group in _PATTERNS]
_LORA = {"A": "down", "a": "down", "down": "down", "B": "up", "b": "up", "up": "up", "mid": "mid"}
_RENAMED = {
    "lora_magnitude_vector": "dora_scale", "magnitude": "dora_scale", "lora_alpha": "alpha", "network_alpha": "alpha",
    "scale": "scaling", "lora_scale": "scaling", "lora_scaling": "scaling",
}  # fmt: skip
KOHYA_MARKS = ("lora_down", "lora_up")
VALUE = "value"
"""The part that a tensor is whose whole key is the name of a parameter."""
WHOLE = frozenset(("weight", "bias", VALUE))
"""Parts that models hold as well."""
MAY_BE_WHOLE_NUMBERS = WHOLE | {"alpha", "on_input", "scaled_oft", "reshape_weight", "scaling", "scalar"}
"""Parts that may be of whole numbers; of others these stand for others, by scales."""
_WRAPPERS = frozenset(
    (
        "_orig_mod", "module", "base_layer", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "processor", "_module", "inner_module",
        "lora",
    )
)  # fmt: skip
"""Parts of names that stand for what training was wrapped in."""
_OF_MLX = re.compile(r"[.]lora_[ab]$")
"""What MLX calls matrices."""
_NUMBERS = ("scaling", "scalar", "settings")
"""Parts that are one number to a layer."""
_UNTOUCHED = "base_layer"
"""What peft calls the layer under an adapter: its weight is the model's own, its bias may be trained."""
_SAVED, _ORIGINAL = "modules_to_save", "original_module"


@dataclass
class FileLayer:
    """What a file holds of one layer.

    Attributes:
        name: of the layer in the file, without what training was wrapped in.
        parts: tensors, by what they are.
        adapters: names of the adapters that they are of, as peft has them.
        keeps_kohya_names: its matrices are called `lora_down` and `lora_up`.
    """

    name: str
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    adapters: set[str] = field(default_factory=set)
    keeps_kohya_names: bool = False

    @property
    def short_name(self) -> str:
        """Its name without the usual prefixes."""
        return without_prefix(self.name)

    def forget(self) -> None:
        """Keeps the sizes of its tensors alone, for sentences on what is wrong: files are large, and read once."""
        self.parts = {part: tensor.to("meta") for part, tensor in self.parts.items()}

    @property
    def alpha(self) -> torch.Tensor | None:
        """A tensor of its own, where it has one."""
        return self.parts.get("alpha")

    @property
    def is_whole(self) -> bool:
        """Whether it holds nothing but what models hold as well."""
        return set(self.parts) <= WHOLE

    @property
    def is_empty(self) -> bool:
        """Whether it has rank 0: it then changes nothing."""
        return any(name in self.parts and not self.parts[name].numel() for name in ("down", "up"))


def split_key(key: str) -> tuple[str, str, str | None]:
    """(layer, part, name of the adapter) of a key; the layer as in the file, the part 'settings' where it changes nothing."""
    for pattern, group in _KEYS:
        match = pattern.fullmatch(key)
        if match is None:
            continue
        named = match.groupdict()
        part = named["part"]
        if group == "lora":
            part = _LORA[part] + ("_bias" if named.get("kind") == ".bias" else "")
        return match["layer"], "settings" if group == "settings" else _RENAMED.get(part, part), named.get("adapter")
    return key, VALUE, None


def clean(name: str) -> str | None:
    """A layer's name without what training was wrapped in; None where it is a copy of the model's own weight."""
    segments = name.split(".")
    if _ORIGINAL in segments:
        return None
    if _SAVED in segments:
        place = segments.index(_SAVED)  # the name of an adapter may follow
        segments = segments[:place] if place >= len(segments) - 2 else segments[:place] + segments[place + 2 :]
    return ".".join(segment for segment in segments if segment not in _WRAPPERS)


def layers_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, FileLayer]:
    """The layers of a LoRA file, by their names in it.

    Raises:
        ValueError: two tensors are the same part of one layer.
    """
    found: dict[str, FileLayer] = {}
    numbers: list[tuple[str, str, str]] = []
    of_mlx: set[str] = set()
    for key, tensor in tensors.items():
        layer, part, adapter = split_key(key)
        name = clean(layer)
        if name is None or (part == "weight" and layer.endswith(f".{_UNTOUCHED}")):
            continue
        if part in _NUMBERS:
            numbers.append((key, name, part))
            continue
        own = found.setdefault(name, FileLayer(name))
        own.adapters |= {adapter} - {None}
        own.keeps_kohya_names |= any(mark in key for mark in KOHYA_MARKS)
        of_mlx |= {name} if _OF_MLX.search(key) else set()
        _add(own, part, key, tensor)
    for name in of_mlx:
        _set_upright(found[name].parts)
    for key, name, part in numbers:  # or parameters of models, where nothing else is of that layer
        own = found.get(name)
        if own is None or own.is_whole:
            _add(found.setdefault(key, FileLayer(key)), VALUE, key, tensors[key])
        elif part != "settings":
            _add(own, part, key, tensors[key])
    return found


def _set_upright(parts: dict[str, torch.Tensor]) -> None:
    """Turns matrices that are (in, R) and (R, out), as MLX has them."""
    down, up = parts.get("down"), parts.get("up")
    if down is not None and up is not None and down.ndim == up.ndim == 2 and down.shape[1] == up.shape[0] < down.shape[0]:
        parts |= {"down": down.t().contiguous(), "up": up.t().contiguous()}


def _add(layer: FileLayer, part: str, key: str, tensor: torch.Tensor) -> None:
    if part in layer.parts:
        raise ValueError(f"{key} is one of several of the same layer ({', '.join(sorted(layer.adapters)) or part})")
    layer.parts[part] = tensor


def adapters_of(keys: Iterable[str]) -> set[str]:
    """Names of the adapters that tensors are of, as peft has them."""
    return {adapter for key in keys if (adapter := split_key(key)[2]) is not None}
