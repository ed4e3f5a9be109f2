"""Blocks on more than one stream: sound beside the video, several kinds of tokens in one sequence, two passes through one block."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import fill
from torch import nn
from torch.nn import functional

from dualreal_core.api import check_recipe
from dualreal_core.errors import InputError
from dualreal_core.families import family_of
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import new_pair
from dualreal_core.objective import FlowMatching
from dualreal_core.training.checkpointing import checkpointed, safe_saving
from dualreal_core.training.recipes import DUALREAL

WIDTH, TIME, NUM_BLOCKS = 8, 6, 3
TEXT, SOUND, VIDEO = 2, 3, 4
"""Tokens of a packed sample, in this order."""


def host_class(name: str, base: type[nn.Module]) -> type[nn.Module]:
    """A class as ComfyUI's of this name, for all that a family's description goes by."""
    return type(name, (base,), {"__module__": "comfy.ldm.fake"})


class PackedMLP(nn.Module):
    """Its forward steps past `fc2`, as quantized weights make it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 20, bias=False), nn.Linear(10, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.fc1(x).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, self.fc2.weight)


class PackedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Sequential()
        self.attn.qkv_proj, self.attn.out_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = PackedMLP()
        self.adaln_proj = nn.Sequential()
        self.adaln_proj.linear = nn.Linear(TIME, WIDTH)

    def forward(self, x: torch.Tensor, t_emb: torch.Tensor, mod_segments: list, rope_freqs: None) -> torch.Tensor:
        x.add_(self.attn(x) * self.adaln_proj.linear(t_emb)[:1])
        return x.add_(self.mlp(x))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.video_patch_proj, self.condition_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([PackedBlock() for _ in range(NUM_BLOCKS)])

    def forward(self, tokens: torch.Tensor, t_emb: torch.Tensor) -> torch.Tensor:
        x = self.video_patch_proj(tokens)
        segments = [(0, TEXT, 1), (TEXT, TEXT + SOUND, torch.full((SOUND,), 5)), (TEXT + SOUND, len(x), 0)]
        for block in self.blocks:
            x = block(x, t_emb, segments, None)
        return x


class Gen(nn.Module):
    """Attention of two methods."""

    def __init__(self) -> None:
        super().__init__()
        for name in "qkvo":
            setattr(self, name, nn.Linear(WIDTH, WIDTH))

    def forward_gen(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(self.q(x) + self.k(x) + self.v(x))

    def forward_pose(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_gen(x), self.k(x)


class TwicePassedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.ffn = Gen(), nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward_pose(self, x: torch.Tensor, e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, k = self.self_attn.forward_pose(x)
        return x + y + self.ffn(x), k

    def forward_gen(self, x: torch.Tensor, e: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return x + self.self_attn.forward_gen(x) + self.ffn(x) + k.mean(1, keepdim=True)

    def kv_from_input(self, x: torch.Tensor) -> torch.Tensor:
        return self.self_attn.k(x)


class TwicePassed(nn.Module):
    """As Wan Animate 2; with a cached pose, the blocks do not see its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv3d(4, WIDTH, 1)
        self.time_embedding = nn.Sequential(nn.Linear(4, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.text_embedding = nn.Sequential(nn.Linear(4, WIDTH))
        self.blocks = nn.ModuleList([TwicePassedBlock() for _ in range(NUM_BLOCKS)])

    def forward(self, video: torch.Tensor, pose: torch.Tensor, time: torch.Tensor, is_cached: bool = False) -> torch.Tensor:
        x = self.patch_embedding(video).flatten(2).transpose(1, 2)
        x_pose = self.patch_embedding(pose).flatten(2).transpose(1, 2)
        e, _ = self.time_embedding(time), self.time_embedding(torch.ones_like(time))
        for block in self.blocks:
            if is_cached:
                k = block.kv_from_input(x_pose)
            else:
                x_pose, k = block.forward_pose(x_pose, e)
            x = block.forward_gen(x, e, k)
        return x


class AudioAttention(nn.Module):
    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = nn.Linear(width, 4), nn.Linear(context, 4), nn.Linear(context, 4)
        self.to_out = nn.Sequential(nn.Linear(4, width), nn.Identity())

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        context = x if context is None else context
        return self.to_out(self.to_q(x) + (self.to_k(context) * self.to_v(context)).mean(1, keepdim=True)).tanh()


class FoldedForward(nn.Module):
    """Its forward steps past the layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(width, 6)
        first.forward = lambda x: first.proj(x).relu()
        self.net = nn.Sequential(first, nn.Identity(), nn.Linear(6, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.linear(x, self.net[0].proj.weight, self.net[0].proj.bias).relu()
        return functional.linear(hidden, self.net[2].weight, self.net[2].bias)


class SoundBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.audio_attn1 = AudioAttention(WIDTH, WIDTH), AudioAttention(5, 5)
        self.audio_to_video_attn, self.video_to_audio_attn = AudioAttention(WIDTH, 5), AudioAttention(5, WIDTH)
        self.ff, self.audio_ff = FoldedForward(WIDTH), FoldedForward(5)

    def forward(self, x: tuple[torch.Tensor, torch.Tensor], scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        video, sound = x
        video.add_(self.attn1(video) * scale)
        if sound.numel():
            sound.add_(self.audio_attn1(sound))
            video.add_(self.audio_to_video_attn(video, sound))
            sound.add_(self.video_to_audio_attn(sound, video))
            sound.add_(self.audio_ff(sound))
        return video.add_(self.ff(video)), sound


class WithSound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patchify_proj = nn.Linear(WIDTH, WIDTH)
        self.adaln_single = AdaLayerNorm()
        self.transformer_blocks = nn.ModuleList([SoundBlock() for _ in range(NUM_BLOCKS)])

    def forward(self, video: torch.Tensor, sound: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        table, _ = self.adaln_single(time)
        x = self.patchify_proj(video), sound.clone()
        for block in self.transformer_blocks:
            x = block(x, table[:, None])
        return x


class AdaLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Module()
        self.emb.timestep_embedder = nn.Module()
        self.emb.timestep_embedder.linear_2 = nn.Linear(1, TIME)
        self.linear = nn.Linear(TIME, WIDTH)

    def forward(self, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedded = self.emb.timestep_embedder.linear_2(time[:, None])
        return self.linear(embedded), embedded


@pytest.fixture
def packed() -> nn.Module:
    torch.manual_seed(0)
    model = host_class("MiniMaxH3Model", Packed)().requires_grad_(False)
    for block in model.blocks:
        block.attn.forward = lambda x, attn=block.attn: attn.out_proj(attn.qkv_proj(x).cumsum(0) / len(x))
    return model


@pytest.fixture
def with_sound() -> nn.Module:
    torch.manual_seed(0)
    return host_class("LTXAVModel", WithSound)().requires_grad_(False)


def tokens(seed: int = 1) -> torch.Tensor:
    return torch.randn(TEXT + SOUND + VIDEO, WIDTH, generator=torch.Generator().manual_seed(seed))


def pair_of(transformer: nn.Module, kind: str = "lora", **settings: object):
    pair = new_pair(transformer, 0, identity_kind=kind, motion_kind=kind, rank=2, bottleneck_dim=3, scale=2.0, **settings)
    for parameter in fill(pair).requires_grad_(False).parameters():
        parameter.mul_(0.3)
    return pair


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("is_grad", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_sound_of_a_packed_sample_has_a_strength_of_its_own(packed: nn.Module, kind: str, is_grad: bool, strength: float) -> None:
    """In one place alone, so that nothing else reaches the tokens of the sound."""
    pair = pair_of(packed, kind, has_controller=False)
    for side in pair.sides.values():
        for key in [key for key in side if key not in ("2-ff", "2-mlp/fc2")]:
            del side[key]
    times = torch.randn(2, TIME)
    with torch.set_grad_enabled(is_grad):
        plain = packed(tokens(), times)
        with Attachment(packed, pair) as attachment:
            attachment.audio_strength = 1.0
            whole = packed(tokens(), times) - plain
            attachment.audio_strength = strength
            some = packed(tokens(), times) - plain
            attachment.finish_call()
    sound = slice(TEXT, TEXT + SOUND)
    expected = whole.clone()
    expected[sound] *= strength
    assert (whole.abs().amax(1) > 1e-4).all()
    torch.testing.assert_close(some, expected, rtol=1e-5, atol=1e-6)
    if not strength:
        assert not some[sound].any()


def test_a_packed_sample_is_weighted_by_its_noisiest_timestep(packed: nn.Module) -> None:
    pair, times = pair_of(packed), torch.randn(3, TIME)
    with torch.no_grad(), Attachment(packed, pair) as attachment:
        packed(tokens(), times)
        weights = attachment.weights
        packed(tokens(), torch.cat([times[:1], torch.randn(1, TIME)]))
        assert torch.equal(attachment.weights, weights) and weights.shape == (1, NUM_BLOCKS, 2)
        packed(tokens(), times[1:])
        assert not torch.equal(attachment.weights, weights)


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_a_packed_sample_without_autograd_as_with(packed: nn.Module, kind: str) -> None:
    pair, times = pair_of(packed, kind), torch.randn(2, TIME)
    with Attachment(packed, pair):
        with torch.no_grad():
            fused = packed(tokens(), times)
        torch.testing.assert_close(packed(tokens(), times), fused, rtol=1e-5, atol=1e-6)


def test_sound_is_left_alone_unless_asked_for(with_sound: nn.Module) -> None:
    """By layers that write it; what hears the sound for the picture acts."""
    pair = pair_of(with_sound, has_controller=False, target_layers=("audio_attn1", "audio_ff", "video_to_audio_attn"))
    video, sound, time = torch.randn(2, 4, WIDTH), torch.randn(2, 3, 5), torch.rand(2)
    plain = with_sound(video, sound, time)
    with torch.no_grad(), Attachment(with_sound, pair) as attachment:
        silent = with_sound(video, sound, time)
        assert all(map(torch.equal, silent, plain))
        attachment.audio_strength = 1.0
        loud = with_sound(video, sound, time)
        attachment.finish_call()
    assert not torch.allclose(loud[1], plain[1], atol=1e-3)
    hearing = pair_of(with_sound, has_controller=False, target_layers=("audio_to_video_attn",))
    with torch.no_grad(), Attachment(with_sound, hearing) as attachment:
        assert not torch.allclose(with_sound(video, sound, time)[0], plain[0], atol=1e-3)


def test_a_call_without_sound_leaves_no_place_out(with_sound: nn.Module) -> None:
    layers = ("attn1", "ff", "audio_attn1", "audio_ff", "audio_to_video_attn", "video_to_audio_attn")
    pair = pair_of(with_sound, target_layers=layers)
    video, time = torch.randn(2, 4, WIDTH), torch.rand(2)
    with torch.no_grad(), Attachment(with_sound, pair) as attachment:
        attachment.audio_strength = 1.0
        with_sound(video, torch.zeros(2, 0, 5), time)
        attachment.finish_call()
        with_sound.transformer_blocks[1].audio_attn1.to_q.forward = lambda x: x
        with_sound.transformer_blocks[1].audio_attn1.forward = lambda x: x
        with_sound(video, torch.randn(2, 3, 5), time)
        with pytest.raises(InputError, match=r"transformer_blocks.1.audio_attn1"):
            attachment.finish_call()


def test_blocks_are_run_again_for_all_streams(with_sound: nn.Module) -> None:
    """Those come as a tuple, and blocks overwrite them."""
    pair = pair_of(with_sound, target_layers=("attn1", "ff", "audio_attn1", "video_to_audio_attn")).requires_grad_(True)
    video, sound, time = torch.randn(2, 4, WIDTH), torch.randn(2, 3, 5), torch.rand(2)
    found = []
    for is_rerun in (False, True):
        with Attachment(with_sound, pair) as attachment:
            attachment.audio_strength = 1.0
            if is_rerun:
                with safe_saving(family_of(with_sound)), checkpointed(with_sound, attachment):
                    loss = sum(one.square().sum() for one in with_sound(video, sound, time))
                    loss.backward()
            else:
                with safe_saving(family_of(with_sound)):
                    loss = sum(one.square().sum() for one in with_sound(video, sound, time))
                    loss.backward()
        found.append([parameter.grad.clone() for parameter in pair.parameters()])
        pair.zero_grad(set_to_none=True)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert sum(float(gradient.abs().sum()) for gradient in found[0]) > 0


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_a_block_of_two_passes_takes_the_pair_in_both(kind: str) -> None:
    torch.manual_seed(0)
    model = host_class("WanAnimate2Model", TwicePassed)().requires_grad_(False)
    video, pose, time = torch.randn(1, 4, 2, 2, 2), torch.randn(1, 4, 1, 2, 2), torch.rand(1, 4)
    pair = pair_of(model, kind)
    plain = model(video, pose, time)
    with torch.no_grad(), Attachment(model, pair) as attachment:
        both = model(video, pose, time)
        weights = attachment.weights
        attachment.finish_call()
        cached = model(video, pose, time, is_cached=True)
        assert torch.equal(attachment.weights, weights), "the tokens of the video decide, whichever pass comes first"
    assert not torch.allclose(both, plain, atol=1e-3) and not torch.allclose(cached, both, atol=1e-3)
    assert torch.equal(model(video, pose, time), plain)
    assert type(model.blocks[0].self_attn) is Gen


def test_layers_beside_the_sites_are_trained_where_they_are_named(with_sound: nn.Module) -> None:
    own = new_pair(with_sound, identity_kind="lora", motion_kind="lora")
    assert {key.partition("-")[2].partition("/")[0] for key in own.sides["identity"]} == {"attn1", "ff"}
    asked = new_pair(with_sound, identity_kind="lora", motion_kind="lora", target_layers=("to_q", "audio_ff"))
    assert {key.partition("-")[2] for key in asked.sides["motion"]} == {"attn1/to_q", "audio_ff/net/0/proj", "audio_ff/net/2"}
    with pytest.raises(ValueError, match=r"'audio_fff'; ltx2 blocks have .*audio_to_video_attn.to_q"):
        new_pair(with_sound, identity_kind="lora", motion_kind="lora", target_layers=("audio_fff",))


def test_layers_that_nothing_would_train_are_named(with_sound: nn.Module) -> None:
    """Of a variant that lacks them; and those of the sound, as training has none."""
    base = SimpleNamespace(
        architecture=with_sound, name="tiny", objective=FlowMatching(shift=3.0), condition_dim=None, family=family_of(with_sound)
    )
    for targets, sentence in (("attn2",), "may have and this one has not"), (("attn1", "audio_ff"), "acts only where there is sound"):
        with pytest.raises(InputError, match=sentence):
            check_recipe(base, replace(DUALREAL, pair={**DUALREAL.pair, "target_layers": targets, "num_groups": 1}))
