"""The presets of blend curves for the page's editor, out of the table that everything else goes by."""

from __future__ import annotations

from ..dualreal_core.method.curves import MAX_WEIGHT
from ..dualreal_core.method.presets import IDENTITY_EARLY, IDENTITY_EARLY_RANGE, MOVEMENT_FIRST, PRESETS, movement_first

ADDRESS = "/dualreal/presets"


def register(routes) -> None:
    """Answers `ADDRESS` with `presets`."""
    from aiohttp import web

    @routes.get(ADDRESS)
    async def answer(_request):
        return web.json_response(presets())


def presets() -> dict:
    """Names and texts of all presets; of the one with a dial, also the texts at both ends, between which it is linear."""
    ends = [{"value": value, "curves": str(movement_first(value))} for value in IDENTITY_EARLY_RANGE]
    return {
        "max_weight": MAX_WEIGHT,
        "presets": [{"name": name, "curves": str(curves)} for name, curves in PRESETS.items()],
        "dial": {"preset": MOVEMENT_FIRST, "value": IDENTITY_EARLY, "ends": ends},
    }
