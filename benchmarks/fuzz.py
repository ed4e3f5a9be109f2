"""Breaks files of every kind that we read, and looks at what comes of it: a right result or one sentence, and nothing else.

python benchmarks/fuzz.py --kinds png,pair --count 2000 --seed 1

An input is made from kind, seed and number alone. A result that is wrong, another exception, an ended process or more than 30 s is a
fault: its file is kept with the command that repeats it. A call of the same seed goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))
os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # pair files hold the date
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process for each core

SECONDS, START_SECONDS = 30.0, 300.0
SHOWN = 20


@dataclass(frozen=True)
class Outcome:
    """What came of one input: 'right', 'refused', or a fault: 'wrong', 'raised', 'ended', 'hung'."""

    word: str
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        return self.word not in ("right", "refused")


@cache
def prepared(kind: str) -> list[tuple[str, bytes, object]]:
    """Samples of a kind, each with what it gives."""
    from fuzz_kinds import KINDS, quiet

    found = []
    for name, content in KINDS[kind].samples():
        with tempfile.TemporaryDirectory() as folder, quiet():
            path = Path(folder) / name
            path.write_bytes(content)
            expected = KINDS[kind].read(path)
        fault = KINDS[kind].fault(expected, expected)
        if fault:
            raise AssertionError(f"The unbroken {name} of kind {kind} gives {fault}.")
        found.append((name, content, expected))
    return found


@cache
def _others(own: str) -> list[bytes]:
    """Good files of other kinds."""
    from fuzz_kinds import KINDS

    return [KINDS[kind].samples()[0][1] for kind in ("png", "gif", "toml", "pair", "pth", "csv") if kind != own]


def make_input(kind: str, seed: int, number: int) -> tuple[str, bytes, object]:
    """File name, broken content, and what the unbroken file gives."""
    from fuzz_kinds import KINDS
    from fuzz_mutations import mutate

    random = Random(f"{seed} {kind} {number}")
    name, content, expected = random.choice(prepared(kind))
    return name, mutate(content, KINDS[kind].mutations, _others(kind), random), expected


def try_input(kind: str, seed: int, number: int) -> Outcome:
    """Reads one input in this process."""
    from fuzz_kinds import KINDS, quiet, refusals

    name, content, expected = make_input(kind, seed, number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            with quiet():
                got = KINDS[kind].read(path)
        except refusals() as error:
            sentence = str(error)
            is_named = name in sentence or folder in sentence
            return Outcome("refused", sentence) if is_named and "\n" not in sentence else Outcome("wrong", f"says only: {sentence}")
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = next((f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames) if "dualreal" in frame.filename), "")
            return Outcome("raised", f"{type(error).__name__} at {own}: {' '.join(str(error).split())[:160]}")
    fault = KINDS[kind].fault(expected, got)
    return Outcome("wrong", fault) if fault else Outcome("right")


def _work(connection: Connection, attempt: Attempt, prepare: Callable[[], object]) -> None:
    """Answers inputs until it is ended. A process group of its own, so that what it started ends with it."""
    os.setsid()
    prepare()
    connection.send(None)
    while True:
        outcome = attempt(*connection.recv())
        connection.send((outcome.word, outcome.detail))


Attempt = Callable[[str, int, int], Outcome]


class Worker:
    """A process that tries inputs, and the input it is at."""

    def __init__(self, attempt: Attempt, prepare: Callable[[], object]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, attempt, prepare), daemon=True)
        self.process.start()
        other.close()
        self.asked: tuple[str, int, int] | None = None
        self.until = time.monotonic() + START_SECONDS

    def ask(self, asked: tuple[str, int, int], seconds: float) -> None:
        self.asked = asked
        self.until = time.monotonic() + seconds
        self.connection.send(asked)

    def end(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()
        self.process.join()


def outcomes(
    kind: str,
    seed: int,
    numbers: list[int],
    num_workers: int,
    attempt: Attempt = try_input,
    prepare: Callable[[str], object] = prepared,
    seconds: float = SECONDS,
) -> Iterator[tuple[int, Outcome]]:
    """Tries inputs in several processes, and yields each with what came of it; a process that hangs or ends is replaced."""
    make_worker = partial(Worker, attempt, partial(prepare, kind))
    waiting, workers = list(reversed(numbers)), [make_worker() for _ in range(min(num_workers, len(numbers)))]
    try:
        while workers:
            ready = wait([worker.connection for worker in workers], timeout=0.5)
            for place, worker in enumerate(workers):
                outcome = None
                if worker.connection in ready:
                    try:
                        answer = worker.connection.recv()
                        outcome = Outcome(*answer) if answer else None
                    except (EOFError, ConnectionResetError):
                        worker.process.join()
                        outcome = Outcome("ended", f"the process ended with code {worker.process.exitcode}")
                elif time.monotonic() > worker.until:
                    outcome = Outcome("hung", f"more than {seconds:g} s")
                else:
                    continue
                if outcome is not None:
                    if worker.asked is None:
                        raise RuntimeError(f"A process could not start: {outcome.detail}")
                    yield worker.asked[2], outcome
                    if outcome.word in ("ended", "hung"):
                        worker.end()
                        workers[place] = worker = make_worker()
                        continue
                if waiting:
                    worker.ask((kind, seed, waiting.pop()), seconds)
                else:
                    worker.end()
                    workers[place] = None
            workers = [worker for worker in workers if worker is not None]
    finally:
        for worker in workers:
            if worker is not None:
                worker.end()


def run_kind(kind: str, seed: int, count: int, num_workers: int, out: Path) -> dict[str, object]:
    """Tries all inputs of a kind that earlier calls have not, and keeps the state and the faulty files in a folder."""
    folder = out / f"{kind}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / "state.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else {"tried": {}, "faults": {}}
    left = [number for number in range(count) if str(number) not in state["tried"]]
    began, last = time.monotonic(), time.monotonic()
    for number, outcome in outcomes(kind, seed, left, num_workers):
        state["tried"][str(number)] = outcome.word
        if outcome.is_fault:
            state["faults"][str(number)] = f"{outcome.word}: {outcome.detail}"
            name, content, _ = make_input(kind, seed, number)
            kept = folder / f"{number}"
            kept.mkdir(exist_ok=True)
            (kept / name).write_bytes(content)
            command = f"python benchmarks/fuzz.py --kinds {kind} --seed {seed} --only {number}"
            (kept / "repeat.txt").write_text(f"{outcome.word}: {outcome.detail}\n{command}\n")
        if time.monotonic() - last > 10:
            last = time.monotonic()
            state_file.write_text(json.dumps(state))
            print(f"{kind}: {len(state['tried'])} of {count}, {len(state['faults'])} faults, {last - began:.0f} s", flush=True)
    state_file.write_text(json.dumps(state))
    return state


def main() -> int:
    from fuzz_kinds import KINDS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--count", type=int, default=200, help="inputs of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--only", type=int, metavar="N", help="try this one input in this process, and show what comes of it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fuzz_results"), help="folder for faulty files (default: %(default)s)")
    parser.add_argument("--afresh", action="store_true", help="forget what earlier calls tried")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"unknown kinds: {', '.join(unknown)}; known are {', '.join(KINDS)}")
    seed = Random().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    if options.only is not None:
        found = [(kind, try_input(kind, seed, options.only)) for kind in kinds]
        for kind, outcome in found:
            print(f"{kind} {options.only}: {outcome.word} {outcome.detail}")
        return int(any(outcome.is_fault for _, outcome in found))
    states = {}
    for kind in kinds:
        if options.afresh:
            shutil.rmtree(options.out / f"{kind}-{seed}", ignore_errors=True)
        states[kind] = run_kind(kind, seed, options.count, options.workers, options.out)
    words = ("right", "refused", "wrong", "raised", "ended", "hung")
    print(f"{'kind':<10}" + "".join(f"{word:>9}" for word in words))
    for kind, state in states.items():
        counted = Counter(state["tried"].values())
        print(f"{kind:<10}" + "".join(f"{counted[word]:>9}" for word in words))
    for kind, state in states.items():
        for number, fault in list(state["faults"].items())[:SHOWN]:
            print(f"{kind} {number}: {fault}")
    return int(any(state["faults"] for state in states.values()))


if __name__ == "__main__":
    sys.exit(main())
