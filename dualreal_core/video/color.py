"""Wide-gamut and HDR pictures as an SDR screen shows them: BT.2020 or Display P3 primaries, HLG or PQ light, to BT.709.

SDR white is the reference white of HDR, 203 cd/m2 (ITU-R BT.2408). Highlights above are rolled off, not clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy

REFERENCE_WHITE, NOMINAL_PEAK = 203.0, 1000.0
"""cd/m2; the peak is that of the screens for which HLG is defined, and that most PQ is made for."""
KNEE = 0.9
"""Light below this share of SDR white is left as it is."""
SCREEN_GAMMA = 2.2
HLG_GAMMA = 1.2
"""Of the screen that shows HLG, here per channel, as zscale has it."""
TO_BT709 = {
    "bt2020": ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    "smpte432": ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
"""Linear light by the name of its primaries; the second is Display P3."""
HDR = {"arib-std-b67": "HLG", "smpte2084": "PQ"}
"""What people call a transfer, by its name."""
UNTAGGED = ("unknown", "reserved", "")
HD_HEIGHT, HD_WIDTH = 720, 1280


@dataclass(frozen=True)
class Color:
    """What a file says about its colours, by ffmpeg's names; 'unknown' where it is silent."""

    matrix: str = "unknown"
    primaries: str = "unknown"
    transfer: str = "unknown"

    @property
    def is_wide(self) -> bool:
        """Whether an SDR screen would show it wrongly as it is."""
        return self.transfer in HDR or self.primaries in TO_BT709

    def remarks(self) -> list[str]:
        """What people should know."""
        if self.transfer in HDR:
            return [f"HDR ({HDR[self.transfer]}), tone-mapped to SDR"]
        return ["wide gamut, converted to that of ordinary screens"] if self.is_wide else []

    def lacks_matrix(self, height: int, width: int) -> bool:
        """Whether BT.709 must be supplied: a silent file of high definition has that matrix, and ffmpeg takes BT.601."""
        return self.matrix in UNTAGGED and (height >= HD_HEIGHT or width >= HD_WIDTH)


def to_sdr(values: numpy.ndarray, color: Color) -> numpy.ndarray:
    """RGB of 16 bits (..., 3) in the file's own light and primaries -> uint8 (..., 3) for an SDR screen."""
    linear = _linear_table(color.transfer)[values]  # 1 is SDR white
    if color.primaries in TO_BT709:
        linear = linear @ numpy.array(TO_BT709[color.primaries], dtype=numpy.float32).T
    if color.transfer in HDR:
        strongest = numpy.maximum(linear.max(-1, keepdims=True), 1e-6)
        linear = linear * (_roll_off(strongest) / strongest)
    return (linear.clip(0, 1) ** (1 / SCREEN_GAMMA) * 255).round().astype(numpy.uint8)


def _roll_off(light: numpy.ndarray) -> numpy.ndarray:
    """Reinhard's curve above the knee; the nominal peak becomes white."""
    peak = (NOMINAL_PEAK / REFERENCE_WHITE - KNEE) / (1 - KNEE)
    above = ((light - KNEE) / (1 - KNEE)).clip(0, peak)
    return numpy.minimum(light, KNEE) + (1 - KNEE) * above * (1 + above / peak**2) / (1 + above)


@lru_cache(maxsize=4)
def _linear_table(transfer: str) -> numpy.ndarray:
    """Light on the screen of each of the 65536 values; 1 is SDR white."""
    signal = numpy.linspace(0, 1, 65536)
    if transfer == "arib-std-b67":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = numpy.where(signal <= 0.5, signal**2 / 3, (numpy.exp((signal - c) / a) + b) / 12)
        table = scene**HLG_GAMMA * NOMINAL_PEAK / REFERENCE_WHITE
    elif transfer == "smpte2084":
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        power = signal ** (1 / m2)
        table = (numpy.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10000 / REFERENCE_WHITE
    else:
        table = signal**SCREEN_GAMMA
    return table.astype(numpy.float32)
