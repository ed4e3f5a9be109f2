"""Identity Dataset and Motion Dataset with image_to_video, against ComfyUI's own image-to-video nodes, on small VAEs of noise."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import comfy.sd
import comfy.taesd.taehv
import torch
from comfy_api.latest import InputImpl, Types
from comfy_extras.nodes_hunyuan import HunyuanImageToVideo, HunyuanVideo15ImageToVideo
from comfy_extras.nodes_kandinsky5 import Kandinsky5ImageToVideo
from comfy_extras.nodes_lt import LTXVImgToVideo
from comfy_extras.nodes_minimax_h3 import MiniMaxH3ImageToVideo
from comfy_extras.nodes_wan import Wan22ImageToVideoLatent, WanImageToVideo
from dualreal_pack.dualreal_core.errors import InputError
from dualreal_pack.dualreal_core.method.attach import Attachment
from dualreal_pack.dualreal_core.sampling import SamplingSettings, sample
from dualreal_pack.dualreal_core.training.loop import train
from dualreal_pack.dualreal_core.training.settings import TrainSettings
from dualreal_pack.dualreal_core.training.state import RunState
from dualreal_pack.nodes.datasets import IdentityDataset, MotionDataset
from dualreal_pack.nodes.encoding import clip_lengths, size_multiple
from dualreal_pack.nodes.model_conds import HELD_MASK
from tiny_checkpoints import VAE, build, noise_weights
from training_checks import base_of, load, make_pair
from variant_inputs import noise
from variants import VARIANTS, Variant

SIDE = 64
LENGTHS = {"wan": 9, "wan22": 9, "ltx": 9, "hunyuan": 9, "hunyuan15": 9, "h3": 22}
"""Frames of a clip for the VAE of each kind."""
MODELS = {
    "wan": ("wan22_i2v",), "wan22": ("wan22_5b",), "ltx": ("ltxv", "ltx23"), "hunyuan": ("hunyuan_i2v", "kandinsky5"),
    "hunyuan15": ("hunyuan15",), "h3": ("h3",),
}  # fmt: skip
"""Models of each."""
TAEHV_CHANNELS = {"wan22": 48, "ltx": 128, "hunyuan": 16, "hunyuan15": 32, "h3": 24}


class Words:
    """A text encoder that hears the length of a text, and sees pictures as their mean; filled up to a width."""

    def __init__(self, width: int = 0, pooled_width: int = 0) -> None:
        self.width, self.pooled_width = width, pooled_width

    def tokenize(self, text: str, images: tuple = ()) -> tuple:
        return text, [float(image.mean()) for image in images]

    def encode_from_tokens_scheduled(self, tokens: tuple) -> list:
        text, seen = tokens
        said = torch.tensor([[[float(len(text)), *seen]]])
        if self.width:
            said = torch.nn.functional.pad(said, (0, self.width - said.shape[-1])).expand(-1, 4, -1)
        pooled = torch.ones(1, self.pooled_width) if self.pooled_width else None
        mask = {"attention_mask": torch.ones(said.shape[:2], dtype=torch.long)} if self.width else {}
        return [[said, {"pooled_output": pooled, **mask}]]


PLAIN = Words()


@cache
def vae(kind: str) -> comfy.sd.VAE:
    codec = build(*VAE) if kind == "wan" else comfy.taesd.taehv.TAEHV(TAEHV_CHANNELS[kind])
    weights = noise_weights(codec, 3)
    if kind == "hunyuan":  # that of Wan has the same names, and is told by its type
        weights = {name: weight.half() for name, weight in weights.items()}
    with torch.inference_mode(False):
        return comfy.sd.VAE(sd=weights)


def frames(count: int, seed: int = 1) -> torch.Tensor:
    """(F, H, W, 3) in [0, 1], of smooth noise."""
    coarse = noise(seed, count, 3, 8, 8).sigmoid()
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").movedim(1, -1)
    return (smooth * 255).round().contiguous() / 255  # as files have them


def clip(seed: int, count: int) -> object:
    components = Types.VideoComponents(images=frames(count, seed), frame_rate=Fraction(16))
    return InputImpl.VideoFromComponents(components)


def motion(kind: str, count: int = 1, words: Words = PLAIN, fps: float = 0.0, **inputs: object) -> tuple[list, list]:
    """LATENTs and CONDITIONINGs of clips of noise."""
    length = LENGTHS[kind]
    with torch.inference_mode():
        made = run(
            MotionDataset,
            [clip(seed, length) for seed in range(1, count + 1)], [vae(kind)], [words], ["a dance"], [0], [0], [length], [fps], [1],
            **inputs,
        )  # fmt: skip
    return made.result[0], made.result[1]


def identity(kind: str, words: Words = PLAIN, **inputs: object) -> tuple[list, list]:
    with torch.inference_mode():
        made = run(IdentityDataset, [frames(1, 9)], [vae(kind)], [words], ["a dog"], [0], [0], [1], [0.0], **inputs)
    return made.result[0], made.result[1]


def run(node: type, *inputs: object, **more: object) -> object:
    """As the server runs it, without a place in a graph."""
    return type("Node", (node,), {"hidden": SimpleNamespace(unique_id=None)}).execute(*inputs, **more)


def near(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and torch.allclose(one, two, atol=1e-5)


def clips_tell_their_first_frame_as_the_stock_node_does(kind: str) -> None:
    latents, texts = motion(kind, 2, image_to_video=[True])
    length, entry = LENGTHS[kind], texts[0][0][1]
    first, size, words = frames(length, 1)[:1], {"width": SIDE, "height": SIDE, "length": length, "batch_size": 1}, Words()
    said = words.encode_from_tokens_scheduled(words.tokenize("a dance"))
    with torch.inference_mode():
        if kind == "wan":
            expected = WanImageToVideo.execute(said, said, vae(kind), **size, start_image=first).result[0][0][1]
        elif kind == "hunyuan15":
            expected = HunyuanVideo15ImageToVideo.execute(said, said, vae(kind), **size, start_image=first).result[0][0][1]
        elif kind == "hunyuan":
            expected = HunyuanImageToVideo.execute(said, vae(kind), **size, guidance_type="v1 (concat)", start_image=first).result[0][0][1]
            image = expected["concat_latent_image"]  # the model itself fills up the rest
            expected["concat_latent_image"] = torch.nn.functional.pad(image, (0, 0, 0, 0, 0, latents[0]["samples"].shape[2] - 1))
            expected["concat_mask"] = expected["concat_mask"].expand_as(entry["concat_mask"])
            replaced = Kandinsky5ImageToVideo.execute(said, said, vae(kind), **size, start_image=first).result[0][0][1]["time_dim_replace"]
            assert near(entry["time_dim_replace"], replaced)
        elif kind == "h3":
            made = MiniMaxH3ImageToVideo.execute(words, vae(kind), "a dance", SIDE, SIDE, length, first_frame=first).result[0]
            (given,), (wanted,) = entry["minimax_keyframes"], made[0][1]["minimax_keyframes"]
            assert given["resolved_frame_index"] == 0 and near(given["latent"], wanted["latent"])
            assert near(texts[0][0][0], made[0][0]), "the text encoder did not see the frame"
            assert not near(texts[0][0][0], texts[1][0][0]), "it saw one frame with all captions"
            return
        else:
            node = Wan22ImageToVideoLatent if kind == "wan22" else LTXVImgToVideo
            images = {"start_image": first} if kind == "wan22" else {"image": first, "positive": said, "negative": said, "strength": 1.0}
            if kind == "ltx":  # whose small VAE is of another compression than ComfyUI says
                expected = {"samples": vae(kind).encode(first), "noise_mask": torch.ones(1, 1, latents[0]["samples"].shape[2], 1, 1)}
                expected["noise_mask"][:, :, 0] = 0
            else:
                expected = node.execute(vae=vae(kind), **size, **images).result[-1]
            assert near(latents[0]["noise_mask"], expected["noise_mask"].expand_as(latents[0]["noise_mask"]))
            assert near(latents[0]["samples"][:, :, :1], expected["samples"][:, :, :1]), "another first frame is held"
            assert "concat_latent_image" not in entry
            return
    for name in ("concat_latent_image", "concat_mask"):
        assert near(entry[name], expected[name]), name
        assert name == "concat_mask" or not near(entry[name], texts[1][0][1][name]), "all clips have one first frame"


def without_the_input_lists_are_as_before(kind: str) -> None:
    for latents, texts in (motion(kind), identity(kind)):
        assert set(latents[0]) == {"samples", "dualreal_file"}
        assert set(texts[0][0][1]) - {"frame_rate"} == {"pooled_output", "dualreal_caption"}


def clips_tell_their_frame_rate_to_models_that_read_it(kind: str) -> None:
    """The rate that they are trained at, or their own; photos have none."""
    rates = {fps: [text[0][1].get("frame_rate") for text in motion(kind, fps=fps)[1]] for fps in (0.0, 12.0)}
    assert rates == ({0.0: [16.0], 12.0: [12.0]} if kind == "ltx" else {0.0: [None], 12.0: [None]})
    assert "frame_rate" not in identity(kind)[1][0][0][1]


def clips_of_another_frame_rate_are_other_data(kind: str) -> None:
    """They begin another run, share no batch, and the model is called with their rate."""
    for name in MODELS[kind]:
        words = Words(VARIANTS[name].text_dim, VARIANTS[name].pooled_dim)
        (latents, one), (_, two) = (motion(kind, words=words, fps=fps) for fps in (0.0, 12.0))
        two = [[[one[0][0][0], two[0][0][1]]]]
        with base_of(load(name)) as base:
            sets = [base.prepare("motion", latents[:1], text) for text in (one, two)]
            assert sets[0].fingerprints != sets[1].fingerprints
            first, second = (found.items[0] for found in sets)
            assert (first.text["frame_rate"].cond, second.text["frame_rate"].cond) == (16.0, 12.0)
            assert first.bucket != second.bucket
            said = [base.predict(item.latents[None], torch.tensor([0.5]), base.batch_texts([item.text])) for item in (first, second)]
            assert not said[0].equal(said[1])


def photos_say_that_no_frame_is_given(kind: str) -> None:
    latents, texts = identity(kind, image_to_video=[True])
    entry, samples = texts[0][0][1], latents[0]["samples"]
    assert "noise_mask" not in latents[0] and "minimax_keyframes" not in entry and texts[0][0][0].shape[-1] == 1
    if kind in ("wan", "hunyuan", "hunyuan15"):
        assert entry["concat_mask"].eq(1).all() and entry["concat_latent_image"].shape == samples.shape
        grey = vae("wan").encode(torch.full((1, SIDE, SIDE, 3), 0.5)) if kind == "wan" else torch.zeros_like(samples)
        assert near(entry["concat_latent_image"], grey)
    else:
        assert "concat_latent_image" not in entry


def an_image_encoder_sees_first_frames(kind: str) -> None:
    class Encoder:
        def encode_image(self, pixels: torch.Tensor) -> float:
            return float(pixels.mean())

    _, texts = motion(kind, clip_vision=[Encoder()], image_to_video=[True])
    assert texts[0][0][1]["clip_vision_output"] == float(frames(LENGTHS[kind], 1)[0].mean())
    _, texts = motion(kind, clip_vision=[Encoder()])
    assert "clip_vision_output" not in texts[0][0][1]


def lengths_and_sizes_are_those_of_the_vae(kind: str) -> None:
    lengths = {"h3": (17, 5)}.get(kind, (4, 1))
    assert clip_lengths(vae(kind)) == lengths and size_multiple(vae(kind)) == {"hunyuan15": 16, "wan": 16, "hunyuan": 16}.get(kind, 32)
    latents, _ = motion(kind)
    with torch.inference_mode():
        assert vae(kind).decode(latents[0]["samples"]).shape[1] >= LENGTHS[kind], "frames are lost"


def lists_of_both_nodes_train_a_model(kind: str) -> None:
    """From clips and photos to a trained pair, by the nodes' own lists; and a preview begins with the first clip's frame."""
    for name in MODELS[kind]:
        lists_train(kind, VARIANTS[name])


def lists_train(kind: str, variant: Variant) -> None:
    words = Words(variant.text_dim, variant.pooled_dim)
    lists = {"motion": motion(kind, 2, words, image_to_video=[True]), "identity": identity(kind, words, image_to_video=[True])}
    settings = TrainSettings(steps=4, warmup_steps=0, preservation_ratio=0.0, seed=3, identity_batch=1, motion_batch=1)
    with base_of(load(variant.name)) as base:
        items = {role: base.prepare(role, *made).items for role, made in lists.items()}
        pair = make_pair(base)
        with Attachment(base.transformer, pair) as attachment:
            losses = [done.loss for done in train(base, attachment, items, settings, RunState.start(pair, settings))]
        assert len(losses) == 4 and all(map(math.isfinite, losses)), losses
        clip, prompt = items["motion"][0], words.encode_from_tokens_scheduled(words.tokenize("a dog dances"))
        text = base.conds(prompt, clip.latents, like=clip.text)
        shape = clip.latents.shape
        made = sample(base, [text], text, SamplingSettings(*shape[1:], 2, 1.0))
        assert made.shape[1:] == shape and made.isfinite().all()
        if variant.detected == "MiniMaxH3":
            given, wanted = (conds["minimax_payload"].cond["cond_video_latents"] for conds in (text, clip.text))
            assert len(given) == 1 and given[0].equal(wanted[0]), "the sample is not told the frame"
        if "frame_rate" in clip.text:
            assert text["frame_rate"].cond == clip.text["frame_rate"].cond == 16
        if HELD_MASK in clip.text:
            assert torch.allclose(made[0, :, :1].cpu(), clip.latents[:, :1], atol=1e-4), "the sample does not begin with the frame"


def a_vae_of_no_such_model_is_named(kind: str) -> None:
    codec = vae(kind)
    codec.latent_channels = 12
    try:
        motion(kind, image_to_video=[True])
    except InputError as refusal:
        assert "TAEHV, 12 channels" in str(refusal) and "switch it off" in str(refusal)
    else:
        raise AssertionError("it is taken")
    finally:
        codec.latent_channels = TAEHV_CHANNELS[kind]
