"""Two LoRAs on the models of `variants`: as ComfyUI's loaders put both on, and previews that are compared."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.samplers
import comfy.sd
import folder_paths
import torch
from checkpoint_forms import LARGEST
from comfy_extras.nodes_void import VOID_DDIM
from dualreal_pack.dualreal_core.method.pair import ROLES
from dualreal_pack.dualreal_core.method.presets import PRESETS, movement_first
from dualreal_pack.dualreal_core.metrics.preview_judge import judge
from dualreal_pack.nodes.lora_sides import NONE, LoraFile, read_sides
from dualreal_pack.nodes.patching import Strengths, applied_pairs
from dualreal_pack.nodes.previews import check_sides, one_side, sample_previews, smaller, stages_of, with_blend
from dualreal_pack.nodes.rough_frames import rough_frames
from dualreal_pack.nodes.two_loras import put_on
from safetensors.torch import load_file, save_file
from server import PromptServer
from variant_bench import Bench, distance
from variant_inputs import STEPS, conditioning, empty_latent, noise_like

EVERYWHERE = Strengths(adapts_negative=True, audio=1.0)
NEAR = 1e-4
QUANTIZED_NEAR = 0.3
"""Of both effects together: the stock loader rounds weight and LoRAs to the format, we do not."""


def two_loras(bench: Bench) -> None:
    """At even weights as two of ComfyUI's loaders; without one file as the other alone; twice without reading again."""
    files = [bench.lora_file.name, f"{bench.variant.name}_second.safetensors"]
    tensors = load_file(bench.lora_file)
    save_file({key: value.flip(0).contiguous() if "lora_A" in key else value for key, value in tensors.items()}, bench.folder / files[1])
    folder_paths.add_model_folder_path("loras", str(bench.folder))
    folder_paths.filename_list_cache.clear()
    merged = bench.model
    with torch.inference_mode():
        for file in files:
            merged = comfy.sd.load_lora_for_models(merged, None, load_file(bench.folder / file), 1.0, 0.0)[0]
    sides = read_sides([bench.model], {"identity": LoraFile(files[0]), "motion": LoraFile(files[1])})
    assert read_sides([bench.model], {"identity": LoraFile(files[0]), "motion": LoraFile(files[1])}) is sides, "it was read again"
    stock, ours = bench.sampled(merged), bench.sampled(put_on([bench.model], sides, EVERYWHERE, PRESETS["even"])[0][0])
    effect = distance(stock, bench.stock())
    near = QUANTIZED_NEAR * effect if bench.variant.form in LARGEST else NEAR * 10
    assert effect > 20 * NEAR, "the LoRAs have no effect"
    assert distance(ours, stock) < near, f"it is {distance(ours, stock)} off, of an effect of {effect}"
    alone = read_sides([bench.model], {"identity": LoraFile(files[0]), "motion": LoraFile(NONE)})
    one = bench.sampled(put_on([bench.model], alone, EVERYWHERE, PRESETS["even"])[0][0])
    assert distance(one, bench.sampled(bench.with_lora(EVERYWHERE))) < NEAR, "alone it is not what it was"


def compared(bench: Bench) -> None:
    """Previews are what these blends sample, at cfg 3 and 1, and nothing of them stays on the guider."""
    PromptServer.instance = SimpleNamespace(send_progress_text=lambda *_: None)
    model = bench.with_pair(strengths=Strengths(identity=0.8))
    variant, blend = bench.variant, movement_first(0.0)
    latent = {"samples": empty_latent(variant)}
    sampler = VOID_DDIM() if variant.sampler == "void" else comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
    noise = SimpleNamespace(seed=0, generate_noise=lambda given: noise_like(given["samples"], 5))
    for cfg in (3.0, 1.0):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(conditioning(variant, 11), conditioning(variant, 12))
        guider.set_cfg(cfg)
        stages = stages_of(guider, sigmas, None, None, 0)
        check_sides(stages)
        changes = {role: one_side(role) for role in ROLES} | {"first": with_blend(blend), "even": with_blend(PRESETS["even"])}
        with torch.inference_mode():
            whole, _ = smaller(latent, stages, 1.0, 1.0)
            previews = sample_previews(noise, stages, sampler, whole, changes, "1")
        assert guider.model_patcher is model and applied_pairs(model)[0].blend is None and not applied_pairs(model)[0].parts
        for name, strengths, one in (("first", Strengths(identity=0.8), blend), ("motion", Strengths(identity=0.0), PRESETS["even"])):
            alike = bench.with_pair(strengths=strengths, blend=one.blend(applied_pairs(model)[0].pair.config))
            flat = bench.sampled(alike, cfg=cfg)[: previews[name].numel()].view(previews[name].shape)
            expected = model.model.latent_format.process_in(flat)
            assert expected.equal(previews[name]), f"the preview {name} is not what is sampled at cfg {cfg}"
        assert not previews["identity"].equal(previews["motion"]) and not previews["even"].equal(previews["first"])
        scores = judge({name: previews[name] for name in ("first", "even")}, previews["identity"], previews["motion"])
        assert set(scores) == {"first", "even"}
        gone_wrong = previews["even"][0].clone().fill_(torch.inf)
        assert rough_frames(gone_wrong, model.model.latent_format).isfinite().all(), "a picture of progress would stop the sampling"
    with torch.inference_mode():
        small, said = smaller(latent, stages, 0.5, 1.0)
    if not said:
        sides = [(one.unbind()[0] if one.is_nested else one).shape[-2:] for one in (small["samples"], latent["samples"])]
        assert all(a <= b for a, b in zip(*sides, strict=True))
        with torch.inference_mode():
            assert sample_previews(noise, stages, sampler, small, {"even": changes["even"]}, "1")["even"].isfinite().all()
