"""Tiny bases with random weights, one per family, and items to train them on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import partial

import torch
from diffusers import (
    CogVideoXDPMScheduler,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from torch import nn

from dualreal_core.bases.base import pad_texts
from dualreal_core.bases.denoising import denoise
from dualreal_core.bases.folder_layouts import cogvideox_predict, wan_predict
from dualreal_core.bases.hunyuan_folders import hunyuan_15_predict, hunyuan_predict
from dualreal_core.bases.ltx_folders import ltx2_predict, ltx_predict
from dualreal_core.dataset import PreparedItem
from dualreal_core.families import family_of
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import ROLES, AdapterPair, Role, new_pair, with_gate
from dualreal_core.method.prompt_gate import PromptGate
from dualreal_core.objective import FlowMatching, VPrediction

FAMILY_NAMES = ("cogvideox", "wan")
OTHER_FAMILIES = ("ltx", "ltx2", "hunyuan", "hunyuan 1.5")
"""Kinds of DiTs to which the same code applies by other data; they are in the suites of what depends on the data."""
KINDS = ("bottleneck", "bottleneck-skip", "lora")
CHANNELS = 4
TEXT_DIM = 8
CONDITION_DIM = 6


def cogvideox(num_blocks: int = 5, num_heads: int = 2, seed: int = 0) -> CogVideoXTransformer3DModel:
    """Width 16 per head; text of any length, as it has rotary positions."""
    torch.manual_seed(seed)
    return CogVideoXTransformer3DModel(
        num_attention_heads=num_heads,
        attention_head_dim=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=24,
        text_embed_dim=TEXT_DIM,
        num_layers=num_blocks,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        use_rotary_positional_embeddings=True,
    )


def wan(num_blocks: int = 5, num_heads: int = 2, seed: int = 0) -> WanTransformer3DModel:
    """Width 16 per head."""
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=num_heads,
        attention_head_dim=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=48,
        num_layers=num_blocks,
    )


def ltx(num_blocks: int = 5, num_heads: int = 2, seed: int = 0) -> LTXVideoTransformer3DModel:
    """Width 16 per head."""
    torch.manual_seed(seed)
    return LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=num_heads,
        attention_head_dim=16,
        cross_attention_dim=16 * num_heads,
        num_layers=num_blocks,
        caption_channels=TEXT_DIM,
    )


def hunyuan(num_blocks: int = 2, num_single_blocks: int = 2, num_heads: int = 2, seed: int = 0) -> HunyuanVideoTransformer3DModel:
    """Width 16 per head; double blocks, then single ones."""
    torch.manual_seed(seed)
    return HunyuanVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=num_heads,
        attention_head_dim=16,
        num_layers=num_blocks,
        num_single_layers=num_single_blocks,
        num_refiner_layers=2,
        text_embed_dim=TEXT_DIM,
        pooled_projection_dim=TEXT_DIM,
        rope_axes_dim=(4, 6, 6),
    )


def hunyuan_15(num_blocks: int = 2, num_heads: int = 2, seed: int = 0) -> HunyuanVideo15Transformer3DModel:
    """Width 16 per head."""
    torch.manual_seed(seed)
    return HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=num_heads,
        attention_head_dim=16,
        num_layers=num_blocks,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=TEXT_DIM,
        image_embed_dim=TEXT_DIM,
        rope_axes_dim=(4, 6, 6),
    )


def ltx2(num_blocks: int = 5, num_heads: int = 2, seed: int = 0) -> LTX2VideoTransformer3DModel:
    """Width 16 per head, 12 of the sound."""
    torch.manual_seed(seed)
    return LTX2VideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=num_heads,
        attention_head_dim=16,
        cross_attention_dim=16 * num_heads,
        audio_in_channels=CHANNELS,
        audio_out_channels=CHANNELS,
        audio_num_attention_heads=num_heads,
        audio_attention_head_dim=12,
        audio_cross_attention_dim=12 * num_heads,
        num_layers=num_blocks,
        caption_channels=TEXT_DIM,
    )


TRANSFORMERS = {
    "cogvideox": cogvideox,
    "wan": wan,
    "ltx": ltx,
    "ltx2": ltx2,
    "hunyuan": lambda num_blocks, num_heads, seed: hunyuan(num_blocks - num_blocks // 2, num_blocks // 2, num_heads, seed),
    "hunyuan 1.5": hunyuan_15,
}
PREDICT = {
    "cogvideox": cogvideox_predict,
    "wan": wan_predict,
    "ltx": ltx_predict,
    "ltx2": ltx2_predict,
    "hunyuan": hunyuan_predict,
    "hunyuan 1.5": hunyuan_15_predict,
}


class TinyBase:
    """The part of `bases.base.Base` that training and sampling use."""

    name = "tiny"
    latent_channels = CHANNELS
    frame_multiple = 1
    size_multiple = 2
    default_size = (4, 6)
    default_num_frames = 3
    default_fps = 8.0
    default_guidance_scale = 3.0
    default_num_steps = 3
    condition_dim = CONDITION_DIM
    fingerprint = "tiny"
    device = "cpu"

    def __init__(self, family: str, num_blocks: int = 5, num_heads: int = 2, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            self.transformer: nn.Module = TRANSFORMERS[family](num_blocks, num_heads, seed)
        self.kind, self._predict = family, PREDICT[family]
        self.transformer.requires_grad_(False).eval()
        self.family = family_of(self.transformer)
        scheduler = CogVideoXDPMScheduler() if family == "cogvideox" else FlowMatchEulerDiscreteScheduler(shift=3.0)
        self.denoise = partial(denoise, scheduler, frames_first=family == "cogvideox")
        self.objective = VPrediction(tuple(scheduler.alphas_cumprod.tolist())) if family == "cogvideox" else FlowMatching(shift=3.0)

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.family.compute_dtype(self.transformer)

    def batch_texts(self, texts: list[torch.Tensor]) -> torch.Tensor:
        return pad_texts(texts)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return CHANNELS, num_frames, height, width

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        dtype = self.transformer.dtype
        return self._predict(self.transformer, latents.to(dtype), timestep, text.to(dtype))


def fill(pair: AdapterPair, seed: int = 1, spread: float = 0.2) -> AdapterPair:
    """Gives every parameter random values, the zero-started ones too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return pair


def make_pair(base: TinyBase, kind: str = "bottleneck", **settings: object) -> AdapterPair:
    """An untrained pair with both sides of one kind and a conditioned motion side; small sizes."""
    defaults = {
        "identity_kind": kind, "motion_kind": kind, "bottleneck_dim": 8, "rank": 4, "num_groups": 3, "motion_condition_dim": CONDITION_DIM,
    }  # fmt: skip
    return new_pair(base.transformer, 0, **{**defaults, **settings})


def model_inputs(
    batch: int = 2, num_frames: int = 3, height: int = 4, width: int = 6, num_text: int = 7, seed: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (B, C, f, h, w), timesteps (B,) that differ, text (B, T, X)."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, CHANNELS, num_frames, height, width, generator=generator)
    return latents, torch.linspace(900, 50, batch).long(), torch.randn(batch, num_text, TEXT_DIM, generator=generator)


def condition(batch: int = 2, seed: int = 3) -> torch.Tensor:
    """Reference embeddings (B, E)."""
    return torch.randn(batch, CONDITION_DIM, generator=torch.Generator().manual_seed(seed))


def predict(base: TinyBase, pair: AdapterPair | None = None, with_condition: bool = True, inputs: tuple | None = None) -> torch.Tensor:
    """The base's output, or that of the base with a pair attached, without gradients."""
    inputs = inputs or model_inputs()
    with torch.no_grad():
        if pair is None:
            return base.predict(*inputs)
        with Attachment(base.transformer, pair) as attachment:
            attachment.condition = condition(len(inputs[0])).to(next(pair.parameters()).dtype) if with_condition else None
            return base.predict(*inputs)


def make_items(role: Role, count: int = 4, seed: int = 5) -> list[PreparedItem]:
    """Photos of one latent frame, or clips of three frames with two reference embeddings; texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    num_frames = 1 if role == "identity" else 3
    return [
        PreparedItem(
            latents=torch.randn(CHANNELS, num_frames, 4, 6, generator=generator),
            text=torch.randn(5 + index % 2, TEXT_DIM, generator=generator),
            conditions=torch.randn(2, CONDITION_DIM, generator=generator) if role == "motion" else None,
            mask=None,
            source=f"{role} {index}",
        )
        for index in range(count)
    ]


def naming(text: torch.Tensor, *named: Collection[Role]) -> torch.Tensor:
    """Text (B, T, X) in which the last tokens of each row name these sides for `gated`, and none do elsewhere."""
    text = text.clone()
    text[..., :2] = 0
    for row, roles in enumerate(named):
        for role in roles:
            column = ROLES.index(role)
            text[row, -1 - column] = torch.eye(text.shape[-1])[column] * 3
    return text


def gated(pair: AdapterPair) -> AdapterPair:
    """The pair with a gate that looks for the tokens of `naming`."""
    gate = PromptGate(TEXT_DIM, 2)
    with torch.no_grad():
        gate.features.weight.copy_(torch.eye(2, TEXT_DIM))
        gate.named.weight.copy_(4 * torch.eye(2))
        gate.named.bias.fill_(-2)
    return with_gate(pair, gate)


def all_items(count: int = 4) -> dict[Role, list[PreparedItem]]:
    """Items of both roles."""
    return {"identity": make_items("identity", count), "motion": make_items("motion", count, seed=6)}


def weights_hash(module: nn.Module) -> str:
    """Digest of names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_same(left: object, right: object) -> bool:
    """Bit equality of nested dicts and lists of tensors and plain values."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(is_same(*both) for both in zip(left, right, strict=True))
    return left == right


def tiny_pair(base: TinyBase, **settings: object) -> AdapterPair:
    """A filled pair of two groups."""
    return fill(make_pair(base, **{"num_groups": 2, **settings}))
