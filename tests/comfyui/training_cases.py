"""What `training_checks` and `first_frame_checks` are asked, as data: each check with the models or VAEs that it is tried on."""

from __future__ import annotations

TEXT_TO_VIDEO = ("wan", "wan22_t2v", "cogvideox", "ltxv", "hunyuan", "hunyuan15", "kandinsky5")
IMAGE_TO_VIDEO = ("wan21_i2v", "wan22_i2v", "wan22_5b", "hunyuan15_i2v", "cogvideox_i2v", "cogvideox15_i2v")
WITH_SOUND = ("ltx20", "ltx23", "ltx25", "h3", "h3_curve")
MODELS = (*TEXT_TO_VIDEO, *IMAGE_TO_VIDEO, *WITH_SOUND)
VAES = ("wan", "wan22", "ltx", "hunyuan", "hunyuan15", "h3")

CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "training_checks": {
        "an_untrained_pair_is_neutral_and_gradients_are_right": MODELS,
        "a_stopped_run_ends_as_an_undisturbed_one": (*MODELS, "h3_int8"),
        "the_model_is_called_as_the_sampler_calls_it": (*MODELS, "h3_int8", "wan_vace", "wan_humo"),
    },
    "first_frame_checks": {
        "clips_tell_their_first_frame_as_the_stock_node_does": VAES,
        "without_the_input_lists_are_as_before": VAES,
        "photos_say_that_no_frame_is_given": VAES,
        "an_image_encoder_sees_first_frames": ("wan", "hunyuan15"),
        "lengths_and_sizes_are_those_of_the_vae": VAES,
        "a_vae_of_no_such_model_is_named": ("wan22",),
    },
}
ALL = [(module, check, name) for module, checks in CASES.items() for check, names in checks.items() for name in names]
