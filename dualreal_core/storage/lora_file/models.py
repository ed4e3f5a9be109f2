"""Which model a LoRA file seems to be of: by the names of its layers, their widths and how many blocks they name, and by its metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import InputError
from .keys import FileLayer


@dataclass(frozen=True)
class KnownModel:
    """A model as its layers tell it.

    Attributes:
        title: as people call it.
        layers: some of its names, of which a file must have one; dots and underscores count as equal.
        widths: of what its layers read, of which the file must have one; none: any.
        num_blocks: in the list that `layers` name; 0: any.
    """

    title: str
    layers: str
    widths: tuple[int, ...] = ()
    num_blocks: int = 0


_NOT_BEFORE = r"(?<!transformer_)(?<!(?:single|double|output)_)(?<!(?:input|joint)_)(?<!down_)(?<!up_)"
_WAN = _NOT_BEFORE + r"blocks\.\d+\.(?:self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02]|attn[12]\.to_[qkv]|ffn\.net\.)"
_LTX = r"transformer_blocks\.\d+\.(?:attn[12]\.to_(?:q|k|v|out)|ff\.net\.)"
_UNET = r"(?:down|up|mid|input|middle|output)_blocks?[._\d]*\S*transformer_blocks\.\d+\.attn[12]"
_DOUBLE = r"double_blocks\.\d+\.|single_blocks\.\d+\.|single_transformer_blocks\.\d+\."
KNOWN: tuple[KnownModel, ...] = (
    KnownModel("SDXL", _UNET, (1280, 640, 2048)),
    KnownModel("Stable Diffusion 1.5", _UNET, (320, 768)),
    KnownModel("Stable Diffusion", r"(?:down|up|mid)_blocks?[._]\d+|(?:input|output)_blocks_\d+"),
    KnownModel("LTX-2", r"transformer_blocks\.\d+\.(?:audio_|video_to_audio)"),
    KnownModel("MiniMax-H3", r"blocks\.\d+\.(?:attn\.qkv_proj|attn\.out_proj|mlp\.fc[12])", (5376,)),
    KnownModel("Kandinsky 5", r"visual_transformer_blocks\.\d+\."),
    KnownModel("Wan 14B (2.1, or an expert of 2.2)", _WAN, (5120,)),
    KnownModel("Wan 2.2 5B", _WAN, (3072,)),
    KnownModel("Wan 2.1 1.3B", _WAN, (1536,)),
    KnownModel("Z-Image", r"layers\.\d+\.(?:attention\.|feed_forward\.w)", (3840,)),
    KnownModel("Qwen-Image", r"transformer_blocks\.\d+\.(?:img_mlp|txt_mlp|img_mod|txt_mod|attn\.add_)", (3072,)),
    KnownModel("Stable Diffusion 3", r"joint_blocks\.\d+\.|transformer_blocks\.\d+\.attn2?\.add_q_proj", (1536, 2432)),
    KnownModel("HunyuanVideo 1.5", r"double_blocks\.\d+\.(?:img|txt)_", (2048,)),
    KnownModel("HunyuanVideo", r"double_blocks\.(?:19)\.|single_blocks\.(?:39)\.|single_transformer_blocks\.39\.|individual_token_refiner"),
    KnownModel("Flux", _DOUBLE, (3072,)),
    KnownModel("HunyuanVideo 1.5", r"transformer_blocks\.\d+\.(?:ff_context|norm1_context|attn\.add_)", (2048,)),
    KnownModel("LTX-Video 13B", _LTX, (4096,)),
    KnownModel("LTX-Video 2B", _LTX, (2048,)),
    KnownModel("CogVideoX 5B", r"transformer_blocks\.\d+\.(?:attn1|ff|norm1)\.", (3072,)),
    KnownModel("CogVideoX 2B", r"transformer_blocks\.\d+\.(?:attn1|ff|norm1)\.", (1920,)),
    KnownModel("CogVideoX", r"blocks\.\d+\.(?:attn_out|ff_proj)"),
    KnownModel("a Wan model of another size", _WAN),
    KnownModel("HunyuanVideo or Flux", _DOUBLE),
    KnownModel("LTX-Video or CogVideoX of another size", _LTX),
)
"""The first one that fits is meant."""
_UNET_XL = re.compile(r"(?:input|output|middle|down|up)_blocks?[._\d]*\S*transformer_blocks[._](?:[2-9])[._]")


@dataclass(frozen=True)
class Twin:
    """A model of another family whose layers have the same names and sizes.

    Attributes:
        title: as people call it.
        metadata: what a file's metadata say of it, as a regular expression.
        lists: patterns that find the blocks of each list in names, with how many it has there; the family's own models have more.
    """

    title: str
    metadata: str
    lists: tuple[tuple[str, int], ...]


_BASE_FIELDS = ("modelspec.architecture", "ss_base_model_version", "ss_network_module", "base_model", "base_model_name_or_path")
TWINS: Mapping[str, tuple[Twin, ...]] = {
    "hunyuan": (
        Twin(
            "Flux",
            r"(?i)\bflux|_flux|\bflex[.]1|chroma",
            ((r"(?:double_|(?<!single_)transformer_)blocks[._](\d+)[._]", 19), (r"single_(?:transformer_)?blocks[._](\d+)[._]", 38)),
        ),
    ),
}
"""By family."""


def check_twins(file: str, family: str, metadata: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises InputError where a file's metadata, or the blocks that it changes, are those of a twin of the family."""
    said, listed = " ".join(str(metadata.get(name, "")) for name in _BASE_FIELDS), " ".join(f"{name}." for name in names)
    for twin in TWINS.get(family, ()):
        has_its_blocks = all({int(block) for block in re.findall(pattern, listed)} == set(range(number)) for pattern, number in twin.lists)
        if has_its_blocks or re.search(twin.metadata, said):
            by = "its blocks" if has_its_blocks else "its metadata"
            raise InputError(
                f"{file} is a LoRA of {twin.title} (by {by}), whose layers have the names and sizes of this model's: use it on the model "
                "that it was made for."
            )


def recognise(layers: Iterable[FileLayer]) -> str | None:
    """The title of the model, None where no known one fits."""
    listed = list(layers)
    names = " ".join(layer.name for layer in listed)
    widths = set().union(*(_widths(layer.parts) for layer in listed))
    if _UNET_XL.search(" ".join(layer.name for layer in listed)):
        return "SDXL"
    for model in KNOWN:
        if re.search(model.layers.replace(r"\.", r"[._]"), names) and (not model.widths or widths & set(model.widths)):
            return model.title
    return None


def _widths(parts: Mapping[str, object]) -> set[int]:
    """Widths of what a layer reads."""
    return {parts[name].shape[1] for name in ("down", "hada_w1_b", "a2", "b2", "diff") if name in parts and parts[name].ndim > 1}
