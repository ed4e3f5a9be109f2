"""Forms of LoRA files: by whose names they call layers and matrices, and what stands in their metadata."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..families.layer_naming import Host

_ADAPTER_CONFIG = {"bias": "none", "lora_dropout": 0.0, "peft_type": "LORA", "init_lora_weights": True, "inference_mode": True}
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_MODEL_NAME = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoraForm:
    """One way to write the same LoRA.

    Attributes:
        readers: for people.
        host: whose names layers have.
        prefix: before these.
        parts: names of an update's tensors; it cannot hold what is not among them.
        is_flat: dots in a layer's name become underscores.
        has_alpha: each layer has an alpha, which is its rank.
        is_folder: with a configuration beside it.
    """

    readers: str
    host: Host
    prefix: str
    parts: Mapping[str, str]
    is_flat: bool = False
    has_alpha: bool = False
    is_folder: bool = False

    def layer(self, path: str) -> str:
        """The name of a layer, by its path in the host's DiT."""
        return self.prefix + (path.replace(".", "_") if self.is_flat else path)

    def alpha(self, rank: int) -> torch.Tensor:
        """Alpha of a layer whose matrices have it folded in."""
        return torch.tensor(float(rank))


_A_B = {"down": "lora_A.weight", "up": "lora_B.weight"}
_OTHERS = {name: name for name in ("diff", "diff_b", "lokr_w1", "lokr_w2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}
"""Of updates that are no LoRA, as kohya's programs and ComfyUI call their parts."""
FORMS: dict[str, LoraForm] = {
    "comfyui": LoraForm("ComfyUI (Load LoRA) and what reads its names", "comfy", "diffusion_model.", {**_A_B, **_OTHERS}),
    "diffusers": LoraForm("diffusers (load_lora_weights)", "diffusers", "transformer.", _A_B),
    "peft": LoraForm("peft (PeftModel.from_pretrained)", "diffusers", "base_model.model.", _A_B, is_folder=True),
    "kohya": LoraForm(
        "kohya's and musubi's scripts, and ComfyUI (Load LoRA)", "comfy", "lora_unet_",
        {"down": "lora_down.weight", "up": "lora_up.weight", **_OTHERS}, is_flat=True, has_alpha=True,
    ),
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def adapter_config(ranks: Mapping[str, int]) -> dict[str, object]:
    """Fields of peft's `LoraConfig` for layers of these ranks, by their paths; alpha equals the rank everywhere."""
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != common}
    return {"r": common, "lora_alpha": common, "rank_pattern": others, "alpha_pattern": others, "target_modules": list(ranks)}


def form_metadata(form: LoraForm, ranks: Mapping[str, int]) -> dict[str, str]:
    """What the readers of a form look for in a file's metadata."""
    if form.has_alpha:
        rank = str(max(ranks.values(), default=0))
        return {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    if form is FORMS["diffusers"] and ranks:
        fields = {f"{form.prefix}{name}": value for name, value in adapter_config(ranks).items()}
        return {"lora_adapter_metadata": json.dumps(fields, sort_keys=True)}
    return {}


def folder_config(ranks: Mapping[str, int]) -> str:
    """peft's `adapter_config.json`."""
    return json.dumps({**_ADAPTER_CONFIG, **adapter_config(ranks)}, indent=1, sort_keys=True)
