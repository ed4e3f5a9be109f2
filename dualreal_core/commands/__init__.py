"""The commands of the CLI: in `arguments` what they take, in the module of each command's name what it does."""

from __future__ import annotations

from .arguments.bench import BENCH
from .arguments.combine import COMBINE
from .arguments.convert import CONVERT
from .arguments.demo import DEMO
from .arguments.evaluate import EVALUATE
from .arguments.export import EXPORT
from .arguments.gate import GATE
from .arguments.generate import GENERATE
from .arguments.inspect import INSPECT
from .arguments.train import TRAIN

COMMANDS = {command.name: command for command in (DEMO, TRAIN, GENERATE, INSPECT, EXPORT, CONVERT, COMBINE, GATE, EVALUATE, BENCH)}
