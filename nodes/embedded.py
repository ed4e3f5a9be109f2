"""A whole small video model, and examples to train it on, without a file on disk."""

from __future__ import annotations

from fractions import Fraction

from comfy_api.latest import InputImpl, Types, io

from ..dualreal_core.toyworld.trial import FPS, HELD_OUT_IDENTITIES, HELD_OUT_MOTIONS, Trial
from .embedded_model import empty_latent, load_clip, load_model, load_vae

MAX_SEED = 2**32 - 1


class LoadEmbeddedModel(io.ComfyNode):
    """The toy world as native MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealLoadEmbeddedModel",
            display_name="Load Embedded Model",
            category="DualReal",
            description=(
                "A tiny video model that comes with DualReal (10 MB, runs on a CPU): simple figures that move on a plain "
                "background, 9 frames of 32x32 pixels. Use it as any other model to try every step in seconds."
            ),
            search_aliases=["toy world", "tiny model", "demo model", "checkpoint"],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The video diffusion model, a small Wan. Sample with cfg 3 and 20 steps."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder: any words, for example 'a red square circles on mint'."),
                io.Vae.Output(display_name="vae", tooltip="Its video codec: 16 channels, 4x4 pixels per latent cell, every frame kept."),
                io.Latent.Output(display_name="latent", tooltip="An empty latent of its native clip: 9 frames of 32x32 pixels."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_model(), load_clip(), load_vae(), empty_latent())


class ExampleData(io.ComfyNode):
    """Photos of a figure and clips of a motion that the embedded model has never seen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealExampleData",
            display_name="Example Data",
            category="DualReal",
            description=(
                "Training data for the embedded model: photos of a figure, and clips of other things that perform a motion. "
                "It was trained on neither of the two."
            ),
            search_aliases=["toy world", "demo data", "sample dataset"],
            inputs=[
                io.Combo.Input("identity", options=HELD_OUT_IDENTITIES, tooltip="Figure in the photos, the one to teach."),
                io.Combo.Input("motion", options=HELD_OUT_MOTIONS, tooltip="Motion in the clips, the one to teach."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="Draws places, sizes of the motion, and who performs it. The same seed gives the same data.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="5 photos of 48x48 pixels, one per background."),
                io.String.Output(display_name="image_texts", is_output_list=True, tooltip="Captions of the photos, in their order."),
                io.Video.Output(display_name="videos", is_output_list=True, tooltip="6 clips of 9 frames, 32x32 pixels, 10 frames/s."),
                io.String.Output(display_name="video_texts", is_output_list=True, tooltip="Captions of the clips, in their order."),
                io.String.Output(display_name="prompt", tooltip="Asks for the figure ('*' stands for it) performing the motion."),
            ],
        )

    @classmethod
    def execute(cls, identity: str, motion: str, seed: int) -> io.NodeOutput:
        trial = Trial(identity, motion, seed)
        photos, clips = trial.photos(), trial.clips()
        return io.NodeOutput(
            [photo.frames / 255 for photo in photos],
            [photo.caption for photo in photos],
            [InputImpl.VideoFromComponents(Types.VideoComponents(images=clip.frames / 255, frame_rate=Fraction(FPS))) for clip in clips],
            [clip.caption for clip in clips],
            trial.prompts[0],
        )


NODES: list[type[io.ComfyNode]] = [LoadEmbeddedModel, ExampleData]
