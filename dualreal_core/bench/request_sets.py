"""Names of the sets of prompts that a trial is asked for; `prompts` has the prompts."""

from __future__ import annotations

FORMER_REQUESTS = ("fused", "known_motion", "other_subject")
"""The sets that benchmarks of former versions were asked for."""
ALL_REQUESTS = (*FORMER_REQUESTS, "more_known_motions", "neither", "untriggered")
NAMES_NEITHER = ("neither", "untriggered")
"""Those at which the base is to stay as it is."""
