"""A file of one JSON object a line that grows while a run is at work: what was read once is not read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError


class GrowingFile:
    """Reads records as they are appended.

    A last line that is no record is being written, or was when a run was killed: it is left for the next time.

    Args:
        read: the record of a line; raises what comes of a damaged one.
        loss: what is lost with the file, in words.
    """

    def __init__(self, path: Path, read: Callable[[bytes], dict], loss: str) -> None:
        self.path, self.read, self.loss = path, read, loss
        self._start_over()

    def _start_over(self) -> None:
        self.position, self.last_line, self.num_lines = 0, b"", 0

    def appended(self) -> tuple[bool, list[dict]]:
        """Whether the file goes on from what was read so far, and the records after that; where it was cut back or written anew,
        all its records.

        Raises:
            InputError: a line that is not the last one is damaged.
        """
        try:
            with self.path.open("rb") as stream:
                goes_on = self._goes_on(stream)
                if not goes_on:
                    self._start_over()
                stream.seek(self.position)
                lines = stream.read().splitlines(keepends=True)
        except (FileNotFoundError, NotADirectoryError):
            goes_on, lines = self.position == 0, []
            self._start_over()
        records: list[dict] = []
        for index, line in enumerate(lines, start=1):
            try:
                records.append(self.read(line))
            except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                if index == len(lines):
                    break
                number = self.num_lines + 1
                self._start_over()
                raise InputError(
                    f"{self.path} is damaged in line {number}: put an undamaged copy there, or delete it, which loses {self.loss}."
                ) from error
            self.position, self.last_line, self.num_lines = self.position + len(line), line, self.num_lines + 1
        return goes_on, records

    def _goes_on(self, stream: BinaryIO) -> bool:
        """Whether the line that was read last is still there, and no end of it came since."""
        stream.seek(self.position - len(self.last_line))
        return stream.read(len(self.last_line)) == self.last_line and (not self.last_line or self.last_line.endswith(b"\n"))
