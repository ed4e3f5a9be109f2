"""The tables of docs/benchmark.md whose scores docs/ keeps by part: their columns, and what each method is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .paired_table import paired_table
from .registry import REFERENCES
from .summary import place_of, with_references
from .two_lora_table import KEPT

RETENTION = dict(zip(KEPT, ("identity kept", "motion kept"), strict=True))
SCORES = ("identity", "motion", "identity_top1", "motion_top1")
UNASKED = (
    "known_motion_identity", "known_motion_motion", "leak_motion", "neither_look", "neither_motion", "neither_difference",
    "untriggered_motion", "untriggered_figure", "untriggered_difference",
)  # fmt: skip


@dataclass(frozen=True)
class KeptTable:
    """Attributes:
        cells: file in docs/.
        columns: heading by measure.
        stored: measures that the file keeps.
        against: the method that others are compared with, unless another is named.
        omitted: methods without a row.
        beside: methods of the fusion benchmark's own cells that stand beside, at the same places.
    """

    cells: str
    columns: Mapping[str, str]
    stored: tuple[str, ...]
    against: str
    omitted: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def with_beside(self, results: Sequence[Mapping], fusion: Sequence[Mapping]) -> list[Mapping]:
        """The results, and those of the fusion benchmark that stand beside them: what was measured of both, once."""
        places = {place_of(result) for result in results}
        own = {result["method"] for result in results}
        return [*results, *(one for one in fusion if one["method"] in self.beside and one["method"] not in own and place_of(one) in places)]

    def lines(self, results: Sequence[Mapping], against: str | None = None, columns: Mapping[str, str] | None = None) -> list[str]:
        """The table of a part; measures that it was not asked for have no column."""
        known = {measure for result in with_references(results) for measure in result["scores"]}
        asked = {measure: heading for measure, heading in (columns or self.columns).items() if measure in known}
        return paired_table(results, asked, against or self.against, self.omitted)


KEPT_TABLES = {
    "gate": KeptTable(
        "gate-cells.json",
        {**RETENTION, "known_motion_motion": "known motions", "neither_look": "neither: look", "neither_motion": "neither: motion"},
        (*SCORES, *UNASKED),
        "no-gate",
    ),
    "cfg-1": KeptTable("cfg-1-cells.json", RETENTION, SCORES, "ours", REFERENCES),
    "peers": KeptTable(
        "peers-cells.json",
        {**RETENTION, "known_motion_motion": "known motions"},
        (*SCORES, "known_motion_motion"),
        "ours",
        REFERENCES,
        beside=("sum", "sum-scheduled", "mixed-lora", "motiondirector", "paper", "paper-guided", "ours"),
    ),
}
