"""What `training_checks` and `first_frame_checks` are asked, as data: each check with the models or VAEs that it is tried on."""

from __future__ import annotations

from variants import VARIANTS

MODELS = tuple(name for name in VARIANTS if name != "h3_int8")
SMOOTH = tuple(name for name in MODELS if name != "wan_dancer")
"""Those whose loss is near enough to a line for differences."""
RUNS = (
    "hunyuan15", "kandinsky5", "wan21_i2v", "wan22_i2v", "wan22_5b", "hunyuan_i2v", "hunyuan15_i2v", "cogvideox_i2v", "cogvideox15_i2v",
    "ltx20", "ltx23", "ltx25", "h3", "h3_curve", "h3_int8", "wan_animate2",
)  # fmt: skip
"""Those that `test_training` does not stop and continue."""
REFUSED = (
    "no first frame", "no first frame of HunyuanVideo", "no first frame of CogVideoX", "a first frame for a control video",
    "a first frame for VACE", "a first frame for S2V", "a first frame for HuMo", "a first frame for SCAIL", "a first frame for SCAIL-2",
    "an image of another length", "an image of one frame", "another image encoder", "a clip that is given whole", "two samples at a time",
    "text for HunyuanVideo", "text for LTX-Video", "text for LTX-2.5",
    "text for LTX-Video, where LTX-2 joins it", "text of no MiniMax-H3", "no pooled text",
)  # fmt: skip
VAES = ("wan", "wan22", "ltx", "hunyuan", "hunyuan15", "h3")

CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "training_checks": {
        "an_untrained_pair_is_neutral_and_gradients_are_right": SMOOTH,
        "a_stopped_run_ends_as_an_undisturbed_one": RUNS,
        "the_model_is_called_as_the_sampler_calls_it": (*MODELS, "h3_int8"),
        "a_given_frame_is_shown_clean_and_has_no_loss": ("wan22_5b", "ltxv", "ltx20", "ltx23", "ltx25"),
        "what_a_model_cannot_use_is_named": REFUSED,
        "text_to_video_needs_no_image": ("wan", "hunyuan", "hunyuan15", "kandinsky5", "wan_scail2"),
        "the_embedded_model_needs_no_image": ("embedded",),
        "both_experts_rest_until_they_are_used": ("wan",),
        "a_sample_without_an_image_borrows_that_of_a_clip": ("wan21_i2v", "wan22_5b", "ltxv", "hunyuan_i2v", "hunyuan15_i2v"),
    },
    "first_frame_checks": {
        "clips_tell_their_first_frame_as_the_stock_node_does": VAES,
        "without_the_input_lists_are_as_before": VAES,
        "clips_tell_their_frame_rate_to_models_that_read_it": ("ltx", "wan22"),
        "clips_of_another_frame_rate_are_other_data": ("ltx",),
        "photos_say_that_no_frame_is_given": VAES,
        "an_image_encoder_sees_first_frames": ("wan", "hunyuan15"),
        "lengths_and_sizes_are_those_of_the_vae": VAES,
        "lists_of_both_nodes_train_a_model": VAES,
        "a_vae_of_no_such_model_is_named": ("wan22",),
    },
}
ALL = [(module, check, name) for module, checks in CASES.items() for check, names in checks.items() for name in names]
AT_LENGTH = ("an_untrained_pair_is_neutral_and_gradients_are_right", "a_stopped_run_ends_as_an_undisturbed_one")
"""Those that `variant_checks` also makes of every model, in a shorter way."""
LIKE_OTHERS = set(MODELS) - {
    "wan21_i2v", "wan22_i2v", "wan22_5b", "wan_scail2", "hunyuan15", "kandinsky5", "cogvideox", "ltxv", "ltx23", "h3_curve"
}  # fmt: skip
"""Models that are called as another one is."""
CALLS = "the_model_is_called_as_the_sampler_calls_it"
THOROUGH = [case for case in ALL if case[1] in AT_LENGTH or (case[1] == CALLS and case[2] in LIKE_OTHERS)]
BRIEF = [case for case in ALL if case not in THOROUGH]
