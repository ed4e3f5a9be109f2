"""Names of a benchmark's parts on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """For argparse: reads names of parts with commas between them, and refuses others than these."""

    def split(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}; choose of {', '.join(known)}")
        return names

    return split
