"""Tells the page what came of a blend that was drawn there: once a sampling has ended, to the page that asked for the run."""

from __future__ import annotations

from server import PromptServer

from ..dualreal_core.method.blend import Blend, BlendRecord
from ..dualreal_core.method.curves import CurvedBlend
from ..dualreal_core.method.pair import ROLES
from .denoising_stage import NoiseSchedule

EVENT = "dualreal.blend_used"


def tell_page(blend: Blend | None, record: BlendRecord, schedule: NoiseSchedule, prompt: str) -> None:
    """Sends the weights of one sampling; nothing where the blend comes from no node, or where no page listens.

    What is sent: `node`, by ComfyUI's id of it in the run (with those of the subgraphs around it, '12:5'); `prompt_id`, the run's;
    `stages` (S); `noise_levels` (S), 1 to 0; `identity` and `motion`, [stage][group] in units of an even blend's weight.
    """
    page = getattr(PromptServer, "instance", None)  # there is none where nodes are used without a server
    source = blend.curves.source if isinstance(blend, CurvedBlend) else None
    if source is None or page is None or page.client_id not in page.sockets:
        return
    stages = record.positions()
    if not stages:
        return
    table = record.table() / blend.even  # (S, G, 2)
    weights = {role: [[round(float(weight), 4) for weight in row] for row in table[..., index]] for index, role in enumerate(ROLES)}
    levels = [round(schedule.noise_level(schedule.sigma(stage)), 5) for stage in stages]
    message = {"node": str(source), "prompt_id": prompt, "stages": [round(stage, 5) for stage in stages], "noise_levels": levels, **weights}
    page.send_sync(EVENT, message, page.client_id)
