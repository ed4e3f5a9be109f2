"""ComfyUI's own video templates, as the page hands them to the server: tiny models in their loaders, small sizes, stand-ins for the rest.

The graphs themselves come with ComfyUI (the package comfyui-workflow-templates); nothing of them is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graphs import Graph, node
from variants import VARIANTS

Values = Mapping[str, object]

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
APPLY, APPLY_TO_BOTH = "DualRealApplyStageBlender", "DualRealApplyTwoExperts"
MODEL_WIRES = ("model", "guider", "on_true", "on_false")
PHOTO, CLIP = "template_photo.png", "template_clip.mp4"
SIZE = {"width": 64, "height": 48, "length": 9}
LARGER = {"width": 128, "height": 96}
UPSAMPLED = {"width": 64, "height": 64, "length": 9}
"""Of the first of two passes; the second one is twice as wide and high."""

# By a node's kind.
SMALL: Mapping[str, Values] = {
    "WanImageToVideo": SIZE,
    "WanFirstLastFrameToVideo": SIZE,
    "EmptyHunyuanLatentVideo": SIZE,
    "WanAnimate2ToVideo": SIZE,
    "Wan22ImageToVideoLatent": {**LARGER, "length": 9},
    "MiniMaxH3ImageToVideo": {**LARGER, "length": 22},
    "EmptyLTXVLatentVideo": UPSAMPLED,
    "LTXVEmptyLatentAudio": {"frames_number": 9},
    "ResizeImagesByLongerEdge": {"longer_edge": 128},
}
LOADED: Mapping[str, Values] = {"LoadImage": {"image": PHOTO}, "LoadVideo": {"file": CLIP}}
STAND_INS = {
    "CLIPLoader": "BenchTextEncoder",
    "LTXAVTextEncoderLoader": "BenchLtxTextEncoder",
    "CLIPVisionLoader": "BenchVisionLoader",
    "LTXVAudioVAELoader": "BenchAudioLoader",
    "TextGenerateLTX2Prompt": "BenchPromptWriter",
    "SAM3_VideoTrack": "BenchTracker",
}
STAND_INS_OF_FILES = {
    "sam3.1_multiplex_fp16.safetensors": "BenchTrackerLoader",
    "ltx-2.5-audio-vae-bf16.safetensors": "BenchAudioLoader",
    "minimax_h3_audio_vae_fp32.safetensors": "BenchAudioLoader",
}
PART_FILES = {
    "wan_2.1_vae.safetensors": "tiny_wan_vae.safetensors",
    "Wan2_1_VAE_bf16.safetensors": "tiny_wan_vae.safetensors",
    "wan2.2_vae.safetensors": "tiny_wan22_vae.safetensors",
    "ltx-2.5-video-vae-bf16.safetensors": "tiny_ltx_vae.safetensors",
    "minimax_h3_video_vae_fp16.safetensors": "tiny_h3_vae.safetensors",
    "ltx-2.3-spatial-upscaler-x2-1.1.safetensors": "tiny_upsampler.safetensors",
    "ltx-2.5-latent-spatial-upscaler-x2-bf16-1.0.safetensors": "tiny_upsampler.safetensors",
}


def stand_in(kind: str, values: Values) -> str:
    """The kind of node that takes the place of one with these values; itself where none does."""
    of_files = (STAND_INS_OF_FILES.get(value) for value in values.values() if isinstance(value, str))
    return next(filter(None, of_files), STAND_INS.get(kind, kind))


@dataclass(frozen=True)
class OfficialTemplate:
    """One template of ComfyUI.

    Attributes:
        name: of its file.
        family: what its runs are counted as.
        variant: of the tiny models in its loaders, one of `variants`.
        models: each video model's file in the template, to the tiny one.
        changes: further inputs by a node's kind or title, beside those of `SMALL`.
        is_joined: the models are two experts, and one node of ours is put behind both.
    """

    name: str
    family: str
    variant: str
    models: Mapping[str, str]
    changes: Mapping[str, Values] = field(default_factory=dict)
    is_joined: bool = False

    def in_small(self, graph: Graph) -> Graph:
        """The graph with tiny models, small sizes and stand-ins."""
        return {key: self._small(part) for key, part in graph.items()}

    def _small(self, part: dict) -> dict:
        kind, title = part["class_type"], part.get("_meta", {}).get("title", "")
        inputs = {name: self._file(name, value) for name, value in part["inputs"].items()}
        for by in (kind, title):
            inputs |= {**SMALL.get(by, {}), **LOADED.get(by, {}), **self.changes.get(by, {})}
        return {"class_type": stand_in(kind, part["inputs"]), "inputs": inputs, "_meta": {"title": title}}

    def _file(self, name: str, value: object) -> object:
        if name == "lora_name":
            return f"tiny_{self.variant}_lora.safetensors"
        return {**PART_FILES, **self.models}.get(value, value) if isinstance(value, str) else value


def tiny(variant: str, low: bool = False) -> str:
    return f"tiny_{variant}_low.safetensors" if low else VARIANTS[variant].checkpoint


I2V_EXPERTS = {
    "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": tiny("wan22_i2v"),
    "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": tiny("wan22_i2v", low=True),
}
T2V_EXPERTS = {
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": tiny("wan22_t2v"),
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": tiny("wan22_t2v", low=True),
}
LTX23 = {"ltx-2.3-22b-dev-fp8.safetensors": tiny("ltx23")}
LTX25 = {"ltx-2.5-22b-distilled-transformer-comfy-int8-convrot.safetensors": tiny("ltx25")}
H3 = {"minimax_h3_fl2va_pruned_int8_convrot.safetensors": tiny("h3_int8")}
SCAIL_SEGMENTS = {"Int (Width)": {"value": 64}, "Int (Height)": {"value": 64}}

TEMPLATES = {
    template.name: template
    for template in (
        OfficialTemplate("video_minimax_h3_i2v", "MiniMax-H3", "h3_int8", H3, {"Boolean (Enable Lightning LoRA)": {"value": True}}),
        OfficialTemplate("video_minimax_h3_t2v", "MiniMax-H3", "h3_int8", H3),
        OfficialTemplate("video_ltx2_3_i2v", "LTX-2.3", "ltx23", LTX23, {"Width": {"value": 128}, "Height": {"value": 128}}),
        OfficialTemplate("video_ltx2_3_t2v", "LTX-2.3", "ltx23", LTX23, {"Width": {"value": 128}, "Height": {"value": 128}}),
        OfficialTemplate(
            "video_wan2_2_14B_i2v", "Wan 2.2 A14B", "wan22_i2v", I2V_EXPERTS, {"Enable 4steps LoRA?": {"value": True}}, is_joined=True,
        ),
        OfficialTemplate("video_wan2_2_14B_t2v", "Wan 2.2 A14B", "wan22_t2v", T2V_EXPERTS, is_joined=True),
        OfficialTemplate("video_wan2_2_14B_flf2v", "Wan 2.2 A14B", "wan22_i2v", I2V_EXPERTS),
        OfficialTemplate("video_ltx2_5_i2v", "LTX-2.5", "ltx25", LTX25),
        OfficialTemplate(
            "video_wan_animate2", "Wan Animate 2", "wan_animate2", {"wan_animate_2_int8_convrot.safetensors": tiny("wan_animate2")},
        ),
        OfficialTemplate(
            "video_wan21_scail2_character_replacement", "SCAIL-2", "wan_scail2",
            {"wan2.1_14B_SCAIL_2_fp16.safetensors": tiny("wan_scail2")}, SCAIL_SEGMENTS,
        ),
        OfficialTemplate("image_to_video_wan", "Wan 2.1", "wan21_i2v", {"wan2.1_i2v_480p_14B_fp16.safetensors": tiny("wan21_i2v")}),
        OfficialTemplate("video_wan2_2_5B_ti2v", "Wan 2.2 5B", "wan22_5b", {"wan2.2_ti2v_5B_fp16.safetensors": tiny("wan22_5b")}),
    )
}  # fmt: skip


def links_of(part: dict) -> Iterator[tuple[str, list]]:
    """The inputs of a node that are wires: name and [node, output]."""
    for name, value in part["inputs"].items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            yield name, value


def ancestors(graph: Graph, key: str, names: tuple[str, ...] = ()) -> set[str]:
    """What a node hangs on, itself included; with names, by wires into inputs of these names alone."""
    found, open_keys = {key}, [key]
    while open_keys:
        for name, (source, _) in links_of(graph[open_keys.pop()]):
            if source not in found and (not names or name in names):
                found.add(source)
                open_keys.append(source)
    return found


def samplers(graph: Graph) -> list[str]:
    """Ids of the sampling nodes, each before those that go on from it."""
    keys = [key for key, part in graph.items() if part["class_type"] in SAMPLERS]
    return sorted(keys, key=lambda key: sum(other in ancestors(graph, key) for other in keys))


def latents_alone(graph: Graph) -> Graph:
    """As much of the graph as its latents need; node `save N` keeps what the N-th sampler made."""
    keys = samplers(graph)
    kept = set().union(*(ancestors(graph, key) for key in keys))
    return {key: graph[key] for key in graph if key in kept} | saving(keys)


def saving(keys: list[str]) -> Graph:
    return {f"save {index}": node("BenchSave", anything=[key, 0], filename_prefix="template") for index, key in enumerate(keys)}


def with_maps(graph: Graph) -> Graph:
    """The graph with the weights that each applied pair used, in its last sampling, as the text of `weights of NODE`."""
    maps: Graph = {}
    for applied in (key for key, part in graph.items() if part["class_type"] in (APPLY, APPLY_TO_BOTH)):
        own = [key for key in samplers(graph) if applied in ancestors(graph, key, MODEL_WIRES)]
        both = {"low_noise_model": [applied, 1]} if graph[applied]["class_type"] == APPLY_TO_BOTH else {}
        maps[f"map of {applied}"] = node("DualRealBlendMap", model=[applied, 0], latent=[own[-1], 0], **both)
        maps[f"weights of {applied}"] = node("PreviewAny", source=[f"map of {applied}", 1])
    return graph | maps
