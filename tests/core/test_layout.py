"""Imports run one way: `LAYERS` lists folders and modules from the bottom up, and each imports only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "dualreal_core"
LAYERS = (
    "errors", "files", "objective", "families", "method", "video", "toyworld", "bases", "precision", "storage", "dataset", "gating",
    "training", "sampling", "pipelines", "api", "plots", "metrics", "bench", "commands", "cli",
)  # fmt: skip
MOST_MODULES_AT_THE_TOP = 8


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> set[tuple[str, ...]]:
    """Modules that a file imports, wherever in it the import stands."""
    package = path.relative_to(ROOT).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            submodules = {(*target, alias.name) for alias in node.names if (ROOT.joinpath(*target, f"{alias.name}.py")).exists()}
            found |= submodules or {target}
    return found


def core_imports() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Modules of the core with those of the core that each imports, the package itself left out."""
    return {
        module_of(path): {target for target in imports(path) if target[0] == "dualreal_core" and len(target) > 1}
        for path in CORE.rglob("*.py")
    }


def test_every_part_of_the_core_has_its_place():
    parts = {module[1] for module in core_imports() if len(module) > 1}
    assert parts == set(LAYERS)


def test_no_import_runs_upwards():
    place = {layer: index for index, layer in enumerate(LAYERS)}
    upward = [
        (".".join(module), ".".join(target))
        for module, targets in core_imports().items()
        for target in targets
        if len(module) > 1 and place[target[1]] > place[module[1]]
    ]
    assert upward == []


def test_no_import_circles():
    graph = core_imports()
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], way: tuple[tuple[str, ...], ...]) -> None:
        assert module not in way, " -> ".join(".".join(one) for one in (*way[way.index(module) :], module))
        if module not in done:
            for target in graph.get(module, ()):
                visit(target, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert len(done) > 80


def test_few_modules_lie_directly_in_the_core():
    assert len(list(CORE.glob("*.py"))) <= MOST_MODULES_AT_THE_TOP


def test_the_core_knows_neither_comfyui_nor_the_nodes():
    tops = {target[0] for path in CORE.rglob("*.py") for target in imports(path)}
    assert not tops & {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server"}
