"""What the Joint Trainer shows while it works: progress with the time left, loss curves, a sample."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer

from ..dualreal_core.api import Training
from ..dualreal_core.bases.two_experts import TwoExpertBase, at_work, current_expert
from ..dualreal_core.plots.contact_sheet import contact_sheet
from ..dualreal_core.plots.curves import draw_losses
from ..dualreal_core.sampling import SamplingSettings, sample
from ..dualreal_core.training.loop import StepResult
from ..dualreal_core.training.scores import Evaluation
from .comfy_base import ComfyBase, ComfyConds, ComfyItem
from .model_inputs import check_channels
from .progress import PICTURE_SIZE, TEXT_INTERVAL, duration, told
from .training_model import load_to_train

SAMPLE_STEPS = 8
SAMPLE_SEED = 0


class TrainingView:
    """Reports steps to one node of the graph."""

    def __init__(self, node_id: str, base: ComfyBase | TwoExpertBase, total: int, every: int, note: str) -> None:
        self.node_id, self.total, self.every, self.note = node_id, total, every, note
        self.trained, self.base = base, at_work(base, current_expert(base))
        self.bar = ProgressBar(total, node_id=node_id)
        self.begun: tuple[float, int] | None = None
        self.last_text = 0.0
        self.latest = ""
        self.sample_text: ComfyConds | None = None
        self.is_pictured = False
        self._say(note)

    def prepare_sample(self, conditioning: Sequence[list], vae: Sequence[object], item: ComfyItem) -> None:
        """Remembers what previews sample; without a prompt and a VAE they show loss curves alone.

        Raises:
            InputError: the VAE or the prompt's text encoder is not the model's.
        """
        if conditioning and vae and self.every:
            num_channels = self.base.num_channels
            given = getattr(vae[0], "latent_channels", num_channels)
            check_channels(given, num_channels, "The VAE of the preview has", "wire into vae", self.base.encoders)
            self.sample_text = self.base.conds(conditioning[0], item.latents, "preview_conditioning", like=item.text)
            self.vae, self.shape = vae[0], item.latents.shape
            self.condition = None if item.conditions is None else item.conditions[0]

    def show(self, done: StepResult, training: Training) -> None:
        """Progress of every step; now and then the time left and a picture."""
        now = time.monotonic()
        if self.begun is None:
            self.begun = now, done.step
        is_due = self.every > 0 and (done.step % self.every == 0 or done.step == self.total)
        picture = self._picture(training) if is_due else None
        self.is_pictured |= is_due
        self.bar.update_absolute(done.step, self.total, ("JPEG", picture, PICTURE_SIZE) if picture else None)
        if now - self.last_text > TEXT_INTERVAL and done.step > self.begun[1]:
            self.last_text = now
            left = (now - self.begun[0]) / (done.step - self.begun[1]) * (self.total - done.step)
            names = training.pair.config.experts
            who = f"{names[training.recipe.train.expert_at(done.step - 1, len(names))]} {done.role}" if names else done.role
            position = f"Step {done.step} of {self.total}, {duration(left)} left; {who} loss {done.loss:.4f}."
            self._say(f"{self.note}\n{position}{self.latest}")

    def noted(self, note: str) -> None:
        """Shows a sentence, and keeps it to be shown with every step."""
        self.note = f"{self.note} {note}".strip()
        self._say(self.note)

    def evaluated(self, evaluation: Evaluation) -> None:
        """Keeps the latest evaluation to be shown with every step."""
        left = ", ".join(f"{role} {side.loss_ratio:.0%}" for role, side in evaluation.sides.items())
        self.latest = f"\nOf the base's loss was left at step {evaluation.step}: {left}."

    def summary(self, step: int, losses: Sequence[float], report: str) -> str:
        """One line on the finished run, and what limits it."""
        last = f", last loss {losses[-1]:.4f}" if losses else ""
        return f"{self.note}\n{step} steps done{last}.\n\n{report}".rstrip()

    def result(self, text: str, training: Training, node: type[io.ComfyNode]) -> dict:
        """The node's ui output: a text, and the loss curves where no picture was due. The page keeps a picture that was shown."""
        said = told(text).as_dict()
        if self.is_pictured:
            return said
        levels = numpy.asarray(self._curves(training).convert("RGB")).astype(numpy.float32) / 255
        return {**ui.PreviewImage(torch.from_numpy(levels)[None], cls=node).as_dict(), **said}

    def _say(self, text: str) -> None:
        PromptServer.instance.send_progress_text(text, self.node_id)

    def _curves(self, training: Training) -> Image.Image:
        losses = training.directory.loss_history.read()
        return draw_losses(losses.trained, f"Joint training, {self.total} steps", losses.evaluated)

    def _picture(self, training: Training) -> Image.Image:
        curves = self._curves(training)
        if self.sample_text is None:
            return curves
        strip = contact_sheet([("sample", "", self._sample(training))])
        strip = strip.resize((curves.width, round(strip.height * curves.width / strip.width)))
        picture = Image.new("RGB", (curves.width, curves.height + strip.height), "white")
        picture.paste(curves, (0, 0))
        picture.paste(strip, (0, curves.height))
        return picture

    def _sample(self, training: Training) -> torch.Tensor:
        """Frames (F, 3, H, W) in [-1, 1] of the half-trained pair, unguided: a sketch in a few steps."""
        settings = SamplingSettings(self.shape[1], self.shape[2], self.shape[3], SAMPLE_STEPS, 1.0, SAMPLE_SEED)
        latents = sample(self.trained, [self.sample_text], self.sample_text, settings, training.attachment, self.condition)
        with torch.no_grad():
            frames = self.vae.decode(self.base.patcher.model.process_latent_out(latents.cpu()))
        load_to_train(at_work(self.trained, current_expert(self.trained)).patcher)
        return frames.reshape(-1, *frames.shape[-3:]).movedim(-1, 1).float() * 2 - 1
