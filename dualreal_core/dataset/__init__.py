"""From a folder of photos or clips to latents: scan it, look at the report, prepare it."""

from .cache import PreparedItem, PreparedSet, prepare
from .crops import CropSettings
from .manifest import Manifest, scan_identity, scan_motion
from .report import Report

__all__ = ["CropSettings", "Manifest", "PreparedItem", "PreparedSet", "Report", "prepare", "scan_identity", "scan_motion"]
