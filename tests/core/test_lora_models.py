"""LoRA files of models whose layers have the names and sizes of another's."""

from __future__ import annotations

import pytest

from dualreal_core.errors import InputError
from dualreal_core.storage.lora_file.models import check_twins


def names_of(num_double: int, num_single: int) -> list[str]:
    """Of layers in so many blocks, as diffusers calls them."""
    double = [f"transformer.transformer_blocks.{number}.attn.to_q" for number in range(num_double)]
    return double + [f"transformer.single_transformer_blocks.{number}.proj_out" for number in range(num_single)]


def flat(names: list[str]) -> list[str]:
    """As kohya calls them."""
    own = [
        name.removeprefix("transformer.").replace("_transformer_blocks", "_blocks").replace("transformer_blocks", "double_blocks")
        for name in names
    ]
    return [f"lora_unet_{name.replace('.', '_')}" for name in own]


@pytest.mark.parametrize("naming", [list, flat])
def test_flux_is_told_by_its_blocks(naming):
    with pytest.raises(InputError, match=r"lora\.safetensors is a LoRA of Flux \(by its blocks\)"):
        check_twins("lora.safetensors", "hunyuan", {}, naming(names_of(19, 38)))
    for num_double, num_single in ((20, 40), (19, 40), (20, 0), (3, 3), (19, 0)):
        check_twins("lora.safetensors", "hunyuan", {}, naming(names_of(num_double, num_single)))
    check_twins("lora.safetensors", "wan", {}, naming(names_of(19, 38)))


@pytest.mark.parametrize(
    ("metadata", "is_flux"),
    [
        ({"modelspec.architecture": "flux-1-dev/lora"}, True),
        ({"ss_base_model_version": "flux1"}, True),
        ({"ss_network_module": "networks.lora_flux"}, True),
        ({"modelspec.architecture": "hunyuan-video/lora", "modelspec.title": "fluxion"}, False),
        ({"ss_network_module": "networks.lora_framepack"}, False),
        ({}, False),
    ],
)
def test_flux_is_told_by_its_metadata(metadata, is_flux):
    if is_flux:
        with pytest.raises(InputError, match="by its metadata"):
            check_twins("lora.safetensors", "hunyuan", metadata, names_of(2, 2))
    else:
        check_twins("lora.safetensors", "hunyuan", metadata, names_of(2, 2))
