"""The video models that the pack is tested on, one line each: how a tiny random one is made, and what its inputs look like.

Data alone, so that scripts read it without ComfyUI. `tiny_checkpoints` writes the files, `variant_inputs` makes the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Sizes = Mapping[str, object]


@dataclass(frozen=True)
class Seen:
    """What a vision encoder makes of an image: (1, tokens, width)."""

    tokens: int = 5
    width: int = 1280


@dataclass(frozen=True)
class Variant:
    """A model as its files have it.

    Attributes:
        name: in tests; the file is `tiny_NAME.safetensors` where `file` names no other.
        title: as people call it.
        path: of the DiT's class, in ComfyUI's `comfy.ldm`.
        sizes: arguments of that class.
        latent_shape: (channels, frames, height, width) of the graphs' empty latent.
        detected: the class in `comfy.model_base` that the stock loader must choose.
        audio_shape: of the latent's second part, where there is one.
        samples_without_sound: whether it also takes a latent without it.
        text_dim, pooled_dim, needs_text_mask: the text that it reads.
        extras: further entries of the conditioning: a tuple stands for noise of that shape, in lists and dicts too.
        config: what the file's metadata say of the transformer, as official files do.
        quantizes, form: the model whose weights it has, and the form that they are in, in `checkpoint_forms`.
        sampler: "" for those of flow matching; "void" where the stock samplers start from the wrong noise; "ar" of those made to be
            sampled frame by frame.
        samplers: others that it is tried with, and at which cfg.
        max_batch: what its forward takes.
        takes_mask: whether ComfyUI itself samples it with a mask over the latent.
    """

    name: str
    title: str
    path: str
    sizes: Sizes
    latent_shape: tuple[int, int, int, int] = (16, 3, 6, 8)
    detected: str = "WAN21"
    audio_shape: tuple[int, ...] = ()
    samples_without_sound: bool = False
    text_dim: int = 4096
    pooled_dim: int = 0
    needs_text_mask: bool = False
    extras: Mapping[str, object] = field(default_factory=dict)
    config: Sizes = field(default_factory=dict)
    quantizes: str = ""
    form: str = ""
    sampler: str = ""
    samplers: Mapping[str, float] = field(default_factory=lambda: {"heun": 3.0, "dpmpp_2m": 3.0})
    max_batch: int = 2
    takes_mask: bool = True
    file: str = ""

    @property
    def checkpoint(self) -> str:
        """Name of the file."""
        return self.file or f"tiny_{self.name}.safetensors"

    @property
    def dit(self) -> str:
        """Name of the DiT's class."""
        return self.path.rpartition(".")[2]


# Sizes that ComfyUI's detection reads from the weights are as small as it can name them: it takes the head count of Wan
# and HunyuanVideo from 128-wide heads, of CogVideoX from 64-wide ones; LTX-Video 0.9 always has 32 heads; HunyuanVideo's rotary
# axes must fill its head. LTX-2 says its sizes in the metadata. HuMo's audio and Animate's face encoders have one size only.
DEPTH = 3
WAN = {
    "dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": DEPTH, "in_dim": 16, "out_dim": 16, "text_dim": 4096, "freq_dim": 256,
    "cross_attn_norm": True,
}  # fmt: skip
WAN_DIT = "wan.model.WanModel"
HUNYUAN = {
    "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1,
    "vec_in_dim": 768, "context_in_dim": 4096, "depth": DEPTH, "depth_single_blocks": DEPTH, "axes_dim": [16, 56, 56], "theta": 256,
    "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_DIT = "hunyuan_video.model.HunyuanVideo"
HUNYUAN15 = HUNYUAN | {
    "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None, "context_in_dim": 3584, "depth_single_blocks": 0,
    "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152, "meanflow_sum": True,
}  # fmt: skip
COGVIDEOX = {
    "num_attention_heads": 4, "num_layers": DEPTH, "time_embed_dim": 64, "use_rotary_positional_embeddings": True,
}  # fmt: skip
COGVIDEOX15 = COGVIDEOX | {"patch_size": 2, "patch_size_t": 2, "sample_height": 96, "sample_width": 170, "sample_frames": 81}
COGVIDEOX_DIT = "cogvideo.model.CogVideoXTransformer3DModel"
LTX2 = {
    "num_layers": DEPTH, "num_attention_heads": 2, "attention_head_dim": 32, "cross_attention_dim": 64, "caption_channels": 64,
    "audio_num_attention_heads": 2, "audio_attention_head_dim": 16, "audio_cross_attention_dim": 32, "connector_num_attention_heads": 2,
    "connector_attention_head_dim": 32, "connector_num_layers": 1, "rope_type": "split", "frequencies_precision": "float64",
    "positional_embedding_max_pos": [20, 2048, 2048], "causal_temporal_positioning": True, "use_middle_indices_grid": True,
    "timestep_scale_multiplier": 1000, "av_ca_timestep_scale_multiplier": 1000.0,
}  # fmt: skip
LTX23 = LTX2 | {
    "apply_gated_attention": True, "caption_proj_before_connector": True, "caption_projection_first_linear": False,
    "cross_attention_adaln": True, "connector_apply_gated_attention": True, "audio_connector_attention_head_dim": 16,
    "audio_connector_num_attention_heads": 2,
}  # fmt: skip
LTX25 = LTX23 | {"ff_bias": False, "audio_ff_bias": False}
LTX2_DIT = "lightricks.av_model.LTXAVModel"
LTX2_INPUTS = {"latent_shape": (128, 2, 3, 4), "audio_shape": (8, 6, 16), "detected": "LTXAV", "samples_without_sound": True}
H3 = {
    "hidden_size": 64, "num_layers": DEPTH, "token_refiner_num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 32,
    "ffn_hidden_size": 96, "text_dim": 80, "timestep_input_dim": 32, "time_embed_hidden_size": 64, "time_embed_dim": 48,
    "rope_inv_freq_len": 4,
}  # fmt: skip
H3_CURVE = H3 | {"adaln_curve_grid": 33, "time_embed_dim": 8}
H3_DIT = "minimax.model.MiniMaxH3Model"
H3_INPUTS = {
    "latent_shape": (24, 2, 6, 8), "audio_shape": (32, 2, 8), "detected": "MiniMaxH3", "text_dim": 80, "max_batch": 1,
}  # fmt: skip
H3_KEYFRAMES = {
    "minimax_keyframes": [
        {"resolved_frame_index": 0, "latent": (1, 24, 1, 6, 8)},
        {"resolved_frame_index": 4, "latent": (1, 24, 1, 6, 8), "audio_latent": (1, 32, 2, 1)},
    ]
}
H3_REFERENCES = {
    "minimax_refs": [
        {"kind": "image", "latent_h": 6, "latent_w": 8, "latent": (1, 24, 1, 6, 8)},
        {"kind": "video_audio", "latent_t": 2, "latent_h": 4, "latent_w": 4, "latent": (1, 24, 2, 4, 4)}
        | {"ref_audio_t": 3, "audio_latent": (1, 32, 2, 3)},
    ]
}
KANDINSKY = {
    "model_dim": 128, "ff_dim": 256, "time_dim": 64, "visual_embed_dim": 132, "num_text_blocks": 1, "num_visual_blocks": DEPTH,
}  # fmt: skip
KANDINSKY_DIT = "kandinsky5.model.Kandinsky5"
KANDINSKY_INPUTS = {"detected": "Kandinsky5", "text_dim": 3584, "pooled_dim": 768, "takes_mask": False}

FIRST_FRAME = {"concat_latent_image": (1, 16, 3, 6, 8), "concat_mask": (1, 4, 3, 6, 8)}
SEEN_FRAME = FIRST_FRAME | {"clip_vision_output": Seen()}
REFERENCE = {"reference_latents": [(1, 16, 1, 6, 8)]}

_ALL = (
    Variant("wan", "Wan 2.1, text to video", WAN_DIT, WAN | {"model_type": "t2v", "dim": 256, "ffn_dim": 512, "num_heads": 2}),
    Variant("cogvideox", "CogVideoX, text to video", COGVIDEOX_DIT, COGVIDEOX, detected="CogVideoX", sampler="void"),
    Variant(
        "ltxv", "LTX-Video 0.9", "lightricks.model.LTXVModel",
        {"cross_attention_dim": 256, "attention_head_dim": 8, "num_layers": DEPTH}, (128, 2, 3, 4), "LTXV",
        needs_text_mask=True,
    ),
    Variant(
        "hunyuan", "HunyuanVideo, text to video", HUNYUAN_DIT, HUNYUAN, detected="HunyuanVideo", pooled_dim=768,
        file="tiny_hunyuan_video.safetensors",
    ),
    Variant("wan21_i2v", "Wan 2.1, image to video", WAN_DIT, WAN | {"model_type": "i2v", "in_dim": 36}, extras=SEEN_FRAME),
    Variant(
        "wan21_fun", "Wan 2.1 Fun", WAN_DIT, WAN | {"model_type": "i2v", "in_dim": 48, "in_dim_ref_conv": 16},
        extras={"concat_latent_image": (1, 32, 3, 6, 8), "clip_vision_output": Seen()} | REFERENCE,
    ),
    Variant("wan22_t2v", "Wan 2.2 A14B, text to video", WAN_DIT, WAN | {"model_type": "t2v"}),
    Variant("wan22_i2v", "Wan 2.2 A14B, image to video", WAN_DIT, WAN | {"model_type": "t2v", "in_dim": 36}, extras=FIRST_FRAME),
    Variant(
        "wan22_5b", "Wan 2.2 5B", WAN_DIT, WAN | {"model_type": "t2v", "in_dim": 48, "out_dim": 48}, (48, 3, 6, 8), "WAN22",
    ),
    Variant(
        "wan_vace", "Wan VACE", "wan.model.VaceWanModel",
        WAN | {"model_type": "vace", "num_layers": 4, "vace_layers": 2, "vace_in_dim": 96}, detected="WAN21_Vace",
        extras={"vace_frames": [(1, 32, 3, 6, 8)], "vace_mask": [(1, 64, 3, 6, 8)], "vace_strength": [0.8]},
    ),
    Variant(
        "wan21_camera", "Wan 2.1 Fun Camera", "wan.model.CameraWanModel", WAN | {"model_type": "camera", "in_dim": 32},
        detected="WAN21_Camera", extras=SEEN_FRAME | {"camera_conditions": (1, 24, 3, 48, 64)},
    ),
    Variant(
        "wan22_camera", "Wan 2.2 Fun Camera", "wan.model.CameraWanModel", WAN | {"model_type": "camera_2.2", "in_dim": 36},
        detected="WAN21_Camera", extras=FIRST_FRAME | {"camera_conditions": (1, 24, 3, 48, 64)},
    ),
    Variant(
        "wan_humo", "HuMo", "wan.model.HumoWanModel", WAN | {"model_type": "humo", "in_dim": 36}, detected="WAN21_HuMo",
        extras=REFERENCE | {"audio_embed": (1, 3, 8, 5, 1280)},
    ),
    Variant(
        "wan22_s2v", "Wan 2.2 S2V", "wan.model.WanModel_S2V", WAN | {"model_type": "s2v"}, (16, 3, 8, 8), "WAN22_S2V",
        extras={"audio_embed": (1, 25, 1024, 12), "reference_latents": [(1, 16, 1, 8, 8)], "reference_motion": (1, 16, 2, 8, 8)}
        | {"control_video": (1, 16, 3, 8, 8)},
    ),
    Variant(
        "wan22_animate", "Wan 2.2 Animate", "wan.model_animate.AnimateWanModel",
        WAN | {"model_type": "animate", "in_dim": 36, "num_layers": 5}, detected="WAN22_Animate",
        extras=SEEN_FRAME | {"pose_video_latent": (1, 16, 2, 6, 8)},
    ),
    Variant(
        "wan_scail", "SCAIL", "wan.model.SCAILWanModel", WAN | {"model_type": "scail", "in_dim": 20}, detected="WAN21_SCAIL",
        extras=REFERENCE | {"pose_video_latent": (1, 16, 3, 4, 4), "clip_vision_output": Seen()},
    ),
    Variant(
        "wan_scail2", "SCAIL-2", "wan.model.SCAIL2WanModel", WAN | {"model_type": "scail2", "in_dim": 20}, detected="WAN21_SCAIL2",
        extras={"reference_latents": [(1, 16, 1, 6, 8), (1, 16, 1, 6, 8)], "pose_video_latent": (1, 16, 3, 4, 4)}
        | {"clip_vision_output": Seen(), "driving_mask_28ch": (1, 3, 28, 4, 4), "ref_mask_28ch": (1, 5, 28, 6, 8), "ref_mask_flag": True},
    ),
    Variant(
        "wan_dancer", "WanDancer", "wan.model_wandancer.WanDancerModel", WAN | {"model_type": "wandancer", "in_dim": 36},
        (16, 3, 8, 8), "WAN22_WanDancer",
        extras=SEEN_FRAME | {"clip_vision_output_ref": Seen(), "audio_embed": (1, 9, 35), "fps": 30, "audio_inject_scale": 0.9},
    ),
    Variant(
        "wan_animate2", "Wan Animate 2", "wan.model_animate2.WanAnimate2Model", WAN | {"in_dim": 36}, detected="WAN_Animate2",
        extras=SEEN_FRAME | {"pose_video_latent": (1, 16, 2, 6, 8), "clip_vision_output_pose": Seen()}, config={"model_type": "animate2"},
    ),
    Variant(
        "wan_causal", "Causal Wan (Self Forcing)", "wan.ar_model.CausalWanModel", WAN | {"model_type": "t2v"}, detected="WAN21_CausalAR",
        config={"causal_ar": True}, sampler="ar", samplers={"heun": 3.0, "ar_video": 1.0},
    ),
    Variant(
        "hunyuan_i2v", "HunyuanVideo, image to video", HUNYUAN_DIT, HUNYUAN | {"in_channels": 33, "guidance_embed": False},
        detected="HunyuanVideoI2V", pooled_dim=768, extras=FIRST_FRAME | {"concat_mask": (1, 1, 3, 6, 8)},
    ),
    Variant(
        "hunyuan_i2v2", "HunyuanVideo, image to video (v2)", HUNYUAN_DIT, HUNYUAN | {"guidance_embed": False}, detected="HunyuanVideo",
        pooled_dim=768, extras={"guiding_frame_index": 0},
    ),
    Variant(
        "hunyuan15", "HunyuanVideo 1.5, text to video", HUNYUAN_DIT, HUNYUAN15, (32, 3, 3, 4), "HunyuanVideo15",
        text_dim=3584, pooled_dim=768, takes_mask=False,
    ),
    Variant(
        "hunyuan15_i2v", "HunyuanVideo 1.5, image to video", HUNYUAN_DIT, HUNYUAN15 | {"byt5": True, "meanflow": True}, (32, 3, 3, 4),
        "HunyuanVideo15", text_dim=3584, pooled_dim=768,
        extras={"concat_latent_image": (1, 32, 3, 3, 4), "concat_mask": (1, 1, 3, 3, 4), "clip_vision_output": Seen(width=1152)}
        | {"conditioning_byt5small": (1, 3, 1472)},
    ),
    Variant(
        "cogvideox_i2v", "CogVideoX, image to video", COGVIDEOX_DIT, COGVIDEOX | {"in_channels": 32}, detected="CogVideoX", sampler="void",
        extras={"concat_latent_image": (1, 16, 1, 6, 8)},
    ),
    Variant(
        "cogvideox15_i2v", "CogVideoX 1.5, image to video", COGVIDEOX_DIT, COGVIDEOX15 | {"in_channels": 32, "ofs_embed_dim": 64},
        (16, 4, 6, 8), "CogVideoX", sampler="void", extras={"concat_latent_image": (1, 16, 1, 6, 8)},
    ),
    Variant(
        "cogvideox_void", "VOID", COGVIDEOX_DIT, COGVIDEOX15 | {"in_channels": 48}, (16, 4, 6, 8), "CogVideoX", sampler="void",
        extras={"concat_latent_image": (1, 32, 4, 6, 8)},
    ),
    Variant("kandinsky5", "Kandinsky 5, text to video", KANDINSKY_DIT, KANDINSKY, **KANDINSKY_INPUTS),
    Variant(
        "kandinsky5_i2v", "Kandinsky 5, image to video", KANDINSKY_DIT, KANDINSKY, extras={"time_dim_replace": (1, 16, 1, 6, 8)},
        **KANDINSKY_INPUTS,
    ),
    Variant("ltx20", "LTX-2", LTX2_DIT, LTX2, text_dim=128, config=LTX2, **LTX2_INPUTS),
    Variant("ltx23", "LTX-2.3", LTX2_DIT, LTX23, text_dim=96, config=LTX23, **LTX2_INPUTS),
    Variant(
        "ltx25", "LTX-2.5", LTX2_DIT, LTX25 | {"use_keyframes_abs_pos_embedding": True}, text_dim=96, config=LTX25, **LTX2_INPUTS,
    ),
    Variant("h3", "MiniMax-H3, full form", H3_DIT, H3, **H3_INPUTS),
    Variant("h3_curve", "MiniMax-H3, curve form", H3_DIT, H3_CURVE, extras=H3_KEYFRAMES, **H3_INPUTS),
    Variant(
        "h3_int8", "MiniMax-H3, INT8", H3_DIT, H3_CURVE, quantizes="h3_curve", form="int8_tensorwise", extras=H3_REFERENCES, **H3_INPUTS,
    ),
)  # fmt: skip
VARIANTS: Mapping[str, Variant] = {variant.name: variant for variant in _ALL}
