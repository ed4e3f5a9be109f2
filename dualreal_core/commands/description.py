"""A command of the CLI, as its parser shows it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass
class Command:
    """Attributes:
        name: also of the module beside this one whose `run` does the work.
        add_arguments: adds all options to a parser.
        interrupted: what an interrupt leaves, and how to go on.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    interrupted: str = "nothing was written"

    def run(self, arguments: argparse.Namespace) -> None:
        """Does what the command does. Its module is imported only now, as torch and its kin take seconds."""
        import_module(f".{self.name}", __package__).run(arguments)
