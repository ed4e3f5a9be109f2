"""What stands in for the models of official templates that are too large for a test: eyes, ears, prompt writers, trackers.

Each has the sockets of the stock node in whose place it is put.
"""

from __future__ import annotations

import hashlib

import comfy.clip_vision
import torch
from comfy.ldm.sam3.tracker import pack_masks
from comfy_api.latest import io

from .noise_inputs import noise
from .noise_text_encoder import NoiseTextEncoder

VISION_TOKENS, VISION_DIM, EMBEDDING_DIM = 257, 1280, 1024
LATENT_RATE, SAMPLE_RATE = 25, 16000


class NoiseVision:
    """As much of ComfyUI's CLIP vision as encoding an image takes: the same image gives the same noise."""

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> comfy.clip_vision.Output:
        digest = hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        seed = int(digest[:5], 16)
        output = comfy.clip_vision.Output()
        output["penultimate_hidden_states"] = noise(seed, 0, 1, VISION_TOKENS, VISION_DIM)
        output["last_hidden_state"] = noise(seed, 1, 1, VISION_TOKENS, VISION_DIM)
        output["image_embeds"] = noise(seed, 2, 1, EMBEDDING_DIM)
        return output


class NoiseAudio:
    """As much of an audio VAE as empty latents and decoding take; it is its own `first_stage_model`."""

    def __init__(self) -> None:
        self.first_stage_model = self
        self.latent_channels, self.latent_frequency_bins = 8, 16
        self.output_sample_rate = self.audio_sample_rate = SAMPLE_RATE

    def num_of_latents_from_frames(self, frames: int, frame_rate: float) -> int:
        return max(1, round(frames / frame_rate * LATENT_RATE))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """A tone of each latent's mean (B, samples, 2)."""
        rows = latents.float().flatten(1).mean(1, keepdim=True)
        time = torch.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        return torch.sin(2000 * time[None] * (1 + rows))[..., None].expand(-1, -1, 2) * 0.1


def strings(*names: str) -> list[io.Input]:
    """The values of a stock loader, which are left aside."""
    return [io.String.Input(name, default="", optional=True) for name in names]


class BenchVisionLoader(io.ComfyNode):
    """In the place of Load CLIP Vision."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchVisionLoader", category="bench", inputs=strings("clip_name"), outputs=[io.ClipVision.Output("CLIP_VISION")]
        )

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        return io.NodeOutput(NoiseVision())


class BenchAudioLoader(io.ComfyNode):
    """In the place of Load LTXV Audio VAE, and of Load VAE for the sound's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("ckpt_name", "vae_name")
        return io.Schema(node_id="BenchAudioLoader", category="bench", inputs=strings(*names), outputs=[io.Vae.Output("Audio VAE")])

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        return io.NodeOutput(NoiseAudio())


class BenchLtxTextEncoder(io.ComfyNode):
    """In the place of Load LTXV Audio Text Encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = strings("text_encoder", "ckpt_name", "device")
        return io.Schema(node_id="BenchLtxTextEncoder", category="bench", inputs=inputs, outputs=[io.Clip.Output("CLIP")])

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        return io.NodeOutput(NoiseTextEncoder("ltxv"))


class BenchPromptWriter(io.ComfyNode):
    """In the place of Generate LTX2 Prompt: writes the prompt as it was given."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Clip.Input("clip"), io.Image.Input("image", optional=True), io.String.Input("prompt")]
        return io.Schema(node_id="BenchPromptWriter", category="bench", inputs=inputs, outputs=[io.String.Output()])

    @classmethod
    def execute(cls, clip: NoiseTextEncoder, prompt: str, image: torch.Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(prompt)


class BenchTrackerLoader(io.ComfyNode):
    """In the place of Load Checkpoint for a tracker: only its text encoder is used by others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs = [io.Model.Output(), io.Clip.Output(), io.Vae.Output()]
        return io.Schema(node_id="BenchTrackerLoader", category="bench", inputs=strings("ckpt_name"), outputs=outputs)

    @classmethod
    def execute(cls, **_: str) -> io.NodeOutput:
        return io.NodeOutput(None, NoiseTextEncoder(), None)


class BenchTracker(io.ComfyNode):
    """In the place of Run SAM3 Video Track: finds one object, in the left half of each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = [io.Image.Input("images"), io.Model.Input("model"), io.Conditioning.Input("conditioning", optional=True)]
        outputs = [io.Custom("SAM3_TRACK_DATA").Output()]
        return io.Schema(node_id="BenchTracker", category="bench", inputs=inputs, outputs=outputs)

    @classmethod
    def execute(cls, images: torch.Tensor, model: None, conditioning: list | None = None) -> io.NodeOutput:
        frames, height, width, _ = images.shape
        masks = torch.zeros(frames, 1, height, (width + 7) // 8 * 8, dtype=torch.bool)
        masks[..., : width // 2] = True
        return io.NodeOutput({"packed_masks": pack_masks(masks), "orig_size": (height, width), "n_frames": frames, "scores": [1.0]})


NODES: list[type[io.ComfyNode]] = [
    BenchVisionLoader, BenchAudioLoader, BenchLtxTextEncoder, BenchPromptWriter, BenchTrackerLoader, BenchTracker,
]  # fmt: skip
