"""Which photos and clips are kept out of training: whole files, in an order that seed and content alone decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..dataset import PreparedItem
from ..method.pair import Role

FEWEST_TRAINED = 3
"""Files of a side that holding out must leave to train on."""
NOUNS: dict[Role, str] = {"identity": "photos", "motion": "clips"}


@dataclass(frozen=True)
class Split:
    """The samples of one side.

    Attributes:
        trained, validation: all crops of a photo and all segments of a clip are in one of both.
        num_files: photos or clips in all.
        names: the first sample of each file held out, for people.
        basis: on what the side is evaluated, in words.
    """

    trained: list[PreparedItem]
    validation: list[PreparedItem]
    num_files: int
    names: tuple[str, ...]
    basis: str


def split_items(items: Sequence[PreparedItem], role: Role, amount: float, seed: int) -> Split:
    """Keeps files out of training; none where too few would be left to train on.

    Files are taken in the order of a hash of seed and content, so that another file more or less changes only its own place.

    Args:
        amount: a share below 1 of the files, at least one; or a number of them.
    """
    files = files_of(items)
    noun, count = NOUNS[role], len(files)
    if not amount:
        return Split(list(items), [], count, (), f"training data: {count} {noun}, none held out")
    wanted = max(1, round(amount * count)) if amount < 1 else int(amount)
    taken = min(wanted, count - FEWEST_TRAINED)
    if taken < 1:
        return Split(list(items), [], count, (), f"training data: {count} {noun} are too few to hold out any")
    order = sorted(files, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    chosen = set(order[:taken])
    kept_out = {id(item) for name in chosen for item in files[name]}
    trained = [item for item in items if id(item) not in kept_out]
    validation = [item for item in items if id(item) in kept_out]
    names = tuple(files[name][0].source for name in files if name in chosen)
    fewer = "" if taken == wanted else f", as {FEWEST_TRAINED} must remain to train on"
    return Split(trained, validation, count, names, f"held out: {taken} of {count} {noun}{fewer}")


def files_of(items: Sequence[PreparedItem]) -> dict[str, list[PreparedItem]]:
    """Samples by the content of the file that they were cut from."""
    files: dict[str, list[PreparedItem]] = {}
    for item in items:
        # a sample of unknown origin counts as a file of its own, named by its latents
        key = item.fingerprint or hashlib.sha256(item.latents.contiguous().numpy().tobytes()).hexdigest()
        files.setdefault(key, []).append(item)
    return files
