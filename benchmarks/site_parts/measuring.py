"""Arms that take turns in one process and one thread, and what is told of them: ratios of CPU time, and where within a call it goes."""

from __future__ import annotations

import functools
import gc
import importlib
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

MOST_REASON = 160


@dataclass
class Row:
    """A line of a table. `raw`: all that it was made of, for the JSON file alone."""

    shown: dict[str, object]
    raw: dict[str, object] = field(default_factory=dict)


ENTRY_POINTS = (
    "dualreal_core.method.first_block.KeepEmbedding.after",
    "dualreal_core.method.first_block.ChooseWeights.before",
    "dualreal_core.method.updates.ReadTokens.before",
    "dualreal_core.method.updates.Updates.after",
)
"""All through which a DiT's call reaches the pair's own code. To be adapted where that is arranged otherwise."""


class Clock:
    """CPU time of this thread within the pair's code, by entry points that are exchanged while one watches.

    Attributes:
        missing: entry points that the code does not have.
    """

    def __init__(self) -> None:
        self.missing: list[str] = []
        self._spent = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, entry points are timed."""
        exchanged = []
        self.missing = []
        for entry in ENTRY_POINTS:
            module, holder, name = entry.rsplit(".", 2)
            owner = getattr(importlib.import_module(module), holder, None)
            if not hasattr(owner, name):
                self.missing.append(entry)
                continue
            exchanged.append((owner, name, getattr(owner, name)))
            setattr(owner, name, self._timed(exchanged[-1][2]))
        try:
            yield
        finally:
            for owner, name, function in exchanged:
                setattr(owner, name, function)

    def share(self, call: Callable[[], object]) -> tuple[float, float | None]:
        """CPU seconds of a call; and the pair's part of it, in percent of the rest, or None where an entry point is missing."""
        self._spent = 0.0
        with self.watching():
            seconds = cpu_seconds(call)
        return seconds, None if self.missing else 100 * self._spent / (seconds - self._spent)

    def _timed(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args: object, **kwargs: object) -> object:
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._spent += time.thread_time() - begun

        return run


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of what each round gave."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
        return cls(low, statistics.median(values), high)

    def text(self, digits: int = 3) -> str:
        """For a table."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass
class Timings:
    """Of arms that took turns: CPU seconds of each round; shares of the pair, where they were taken; and why arms have none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def ratio(self, name: str, against: str) -> Ratio | None:
        """Of two arms; None where one of them has no times."""
        if name not in self.seconds or against not in self.seconds:
            return None
        return Ratio.of([own / other for own, other in zip(self.seconds[name], self.seconds[against], strict=True)])


def take_turns(makers: Mapping[str, Callable[[], Callable[[], object]]], rounds: int, clocks: Mapping[str, Clock] | None = None) -> Timings:
    """Prepares each arm, calls it once to warm up, and then all in turn. An arm that fails is left out, with its reason.

    makers: by name, what prepares an arm and returns its call. clocks: of arms of which the pair's share is taken.
    """
    timings, calls = Timings(), {}
    for name, make in makers.items():
        try:
            call = make()
            call()
        except Exception as error:
            timings.reasons[name] = reason(error)
        else:
            calls[name] = call
    timings.seconds = {name: [] for name in calls}
    gc.collect()
    for _ in range(rounds):
        for name, call in list(calls.items()):
            clock = (clocks or {}).get(name)
            try:
                seconds, share = clock.share(call) if clock else (cpu_seconds(call), None)
            except Exception as error:
                timings.reasons[name] = reason(error)
                for kept in (calls, timings.seconds, timings.shares):
                    kept.pop(name, None)
                continue
            timings.seconds[name].append(seconds)
            if share is not None:
                timings.shares.setdefault(name, []).append(share)
    return timings


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of this thread in a call."""
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def reason(error: Exception) -> str:
    """An error in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:MOST_REASON].replace("|", "/")


def storages(modules: Collection[torch.nn.Module]) -> set[int]:
    """Addresses of the memory of all parameters and buffers."""
    return {tensor.untyped_storage().data_ptr() for module in modules for tensor in (*module.parameters(), *module.buffers())}
