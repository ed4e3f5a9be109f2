"""As single published files, readers and wrappers have them: strength in plain metadata, and spellings of few programs."""

from __future__ import annotations

from .layers import WAN, wan_name
from .other_trainers import h3_of
from .sheet import Form, Sheet


def plain_metadata(alpha: str, rank: str):
    """Numbers as fields of the metadata, not in a configuration."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=8 / 4)
        sheet.metadata |= {alpha: "8.0", rank: "4"}

    return write


def resized_with_metadata_of_before(sheet: Sheet) -> None:
    """The rank became 4, the factor stayed."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", scale=32 / 16)
    sheet.metadata |= {"lora_alpha": "32", "lora_rank": "16"}


def merge_ratio_in_metadata(sheet: Sheet) -> None:
    """An alpha without a rank, which is no LoRA's."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.metadata |= {"alpha": "0.5", "lora_alpha": "auto"}


def h3_acceleration(sheet: Sheet) -> None:
    """Matrices without `.weight`, and a bank of heads that no DiT has."""
    for part in h3_of(sheet):
        sheet.lora(part.layer, part.name, parts=("lora_down", "lora_up"), rows=part.rows, order=part.order, scale=8 / 4)
    sheet.metadata["lora_alpha"] = "8"
    sheet.put("proj_out.weight", sheet.noise(32, 8, 16))
    sheet.put("proj_out.bias", sheet.noise(32, 8))
    sheet.left_out = ["proj_out"]


FORMS = (
    Form("lora_alpha and lora_rank in metadata", "HyperFlow, scripts", "wan", plain_metadata("lora_alpha", "lora_rank")),
    Form("alpha and rank in metadata", "LightX2V", "wan", plain_metadata("alpha", "rank")),
    Form("lora_alpha in metadata, resized", "scripts", "wan", resized_with_metadata_of_before),
    Form("alpha of a merge in metadata", "merge tools", "wan", merge_ratio_in_metadata),
    Form("MiniMax-H3, lora_down and lora_up, bank of heads", "VideoX-Fun (Acc)", "h3", h3_acceleration),
)
