"""One module per command of the CLI: its help, its arguments, and what it does."""

from __future__ import annotations

from . import bench, demo, evaluate, generate, inspect, train

COMMANDS = {"demo": demo, "train": train, "generate": generate, "inspect": inspect, "evaluate": evaluate, "bench": bench}
