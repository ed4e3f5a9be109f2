"""Classes of diffusers with Wan's blocks among others of their own: a pair acts in every block of the video, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import SkyReelsV2Transformer3DModel, WanAnimateTransformer3DModel, WanVACETransformer3DModel
from tiny import CHANNELS, KINDS, TEXT_DIM, fill, model_inputs
from torch import nn

from dualreal_core.families import WAN_LIKE
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import new_pair

BLOCKS = {"num_attention_heads": 2, "attention_head_dim": 16, "text_dim": TEXT_DIM, "freq_dim": 32, "ffn_dim": 48, "num_layers": 4}
FACES = {"motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4}, "motion_encoder_size": 16, "motion_style_dim": 8, "motion_dim": 4}
FACES |= {"motion_encoder_dim": 8, "face_encoder_hidden_dim": 16, "face_encoder_num_heads": 2, "inject_face_latents_blocks": 2}
Model = tuple[nn.Module, Callable[[], torch.Tensor]]


def vace() -> Model:
    model = WanVACETransformer3DModel(
        **BLOCKS, in_channels=CHANNELS, out_channels=CHANNELS, vace_layers=[0, 2], vace_in_channels=2 * CHANNELS
    ).eval()
    latents, timestep, text = model_inputs()
    return model, lambda: model(latents, timestep, text, control_hidden_states=torch.cat([latents, latents], dim=1), return_dict=False)[0]


def animate() -> Model:
    channels = {"in_channels": 2 * CHANNELS + 4, "latent_channels": CHANNELS, "out_channels": CHANNELS}
    model = WanAnimateTransformer3DModel(**BLOCKS, **channels, **FACES, image_dim=TEXT_DIM).eval()
    latents, timestep, text = model_inputs()
    image, faces = text[:, :5], torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(1))
    return model, lambda: model(torch.cat([latents] * 3, dim=1), timestep, text, image, latents[:, :, 1:], faces, return_dict=False)[0]


def skyreels() -> Model:
    model = SkyReelsV2Transformer3DModel(**BLOCKS, in_channels=CHANNELS, out_channels=CHANNELS).eval()
    return model, lambda: model(*model_inputs(), return_dict=False)[0]


MAKERS = {"vace": vace, "animate": animate, "skyreels": skyreels}


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAKERS[request.param]()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_pair_acts_in_every_block_and_comes_off(model: Model, kind: str) -> None:
    transformer, call = model
    plain = call()
    pair = new_pair(transformer, identity_kind=kind, motion_kind=kind, rank=2, bottleneck_dim=4, num_groups=2)
    with Attachment(transformer, pair) as attachment:
        assert torch.equal(call(), plain) == (kind != "bottleneck-skip")
        attachment.finish_call()
    fill(pair)
    with Attachment(transformer, pair) as attachment:
        assert not torch.allclose(call(), plain, atol=1e-3)
        assert attachment.coverage.has_run and attachment.silent() == []
    assert torch.equal(call(), plain)


def test_all_of_them_are_tried() -> None:
    with torch.random.fork_rng(devices=[]):
        assert {family.class_name for family in WAN_LIKE} == {type(make()[0]).__name__ for make in MAKERS.values()}
