"""What lies beside the nodes says what the nodes say: help pages, Japanese labels.

The schemas are read from the source of `nodes/` without ComfyUI: each file runs with its imports of ComfyUI replaced by
objects that remember how they are called. In English the page shows the schema's own texts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "ja")
SHARED_BY_NODES = ("types", "adapters", "blend")
"""Files of `nodes/` from which others take parts of their schemas."""
COMFYUI_ONLY = {"comfy", "comfy_api", "folder_paths", "server"}
NO_MARKUP = re.compile(r"[{}@|]")
"""The page's translator reads these as markup of its own."""
SILENT = {"DualRealFixedBlend", "DualRealScheduleBlend"}
"""Nodes that never complain."""


class Recorded:
    """Anything of ComfyUI: every attribute and every call of it is another one, which remembers the call."""

    def __init__(self, path: str, args: tuple = (), kwargs: dict | None = None) -> None:
        self.path, self.args, self.kwargs = path, args, kwargs or {}

    def __getattr__(self, name: str) -> Recorded:
        return Recorded(f"{self.path}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> Recorded:
        return Recorded(self.path, args, kwargs)

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __mro_entries__(self, bases: tuple) -> tuple:
        return ()

    @property
    def name(self) -> str:
        """Id of an input, label of an output."""
        return self.kwargs.get("display_name") or self.args[0] if self.path.endswith(".Output") else self.args[0]

    @property
    def tooltip(self) -> str | None:
        return self.kwargs.get("tooltip")


@cache
def namespace(stem: str) -> dict:
    """What a file of `nodes/` defines; modules of the core are the real ones."""
    tree = ast.parse((ROOT / "nodes" / f"{stem}.py").read_text(encoding="utf-8"))
    names: dict = {"__name__": f"pack_schema_{stem}"}
    kept = []
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module != "__future__":
            names.update(_imported(statement))
        elif isinstance(statement, ast.Import):
            names.update(_plain_import(alias) for alias in statement.names)
        elif not isinstance(statement, ast.Expr):
            kept.append(statement)
    exec(compile(ast.Module(kept, tree.type_ignores), f"nodes/{stem}.py", "exec"), names)
    return names


def _imported(statement: ast.ImportFrom) -> dict:
    is_core = statement.level == 2 and statement.module.startswith("dualreal_core")
    is_shared = statement.level == 1 and statement.module in SHARED_BY_NODES
    found = {}
    for alias in statement.names:
        if is_core:
            value = getattr(import_module(statement.module), alias.name)
        else:
            value = namespace(statement.module)[alias.name] if is_shared else Recorded(alias.name)
        found[alias.asname or alias.name] = value
    return found


def _plain_import(alias: ast.alias) -> tuple[str, object]:
    top = alias.name.partition(".")[0]
    return alias.asname or top, Recorded(top) if top in COMFYUI_ONLY else import_module(alias.name if alias.asname else top)


@cache
def schemas() -> dict[str, dict]:
    """Arguments of every node's `io.Schema`, by node id."""
    found = {}
    for path in sorted((ROOT / "nodes").glob("*.py")):
        if "def define_schema" in path.read_text(encoding="utf-8"):
            classes = [value for value in namespace(path.stem).values() if isinstance(value, type) and hasattr(value, "define_schema")]
            for node in (node for node in classes if not node.__subclasses__()):
                schema = node.define_schema().kwargs
                found[schema["node_id"]] = {"inputs": [], "outputs": [], **schema}
    return found


def labels() -> dict:
    return json.loads((ROOT / "locales" / "ja" / "nodeDefs.json").read_text(encoding="utf-8"))


def page(node_id: str, language: str) -> Path:
    """Where ComfyUI's page looks: the language's own file, else the one without language."""
    docs = ROOT / "web" / "docs"
    return docs / f"{node_id}.md" if language == "en" else docs / node_id / f"{language}.md"


@cache
def messages() -> list[re.Pattern]:
    """Every text in the source, with its variable parts open."""
    patterns = []
    for folder in ("nodes", "dualreal_core"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [re.escape(part.value) if isinstance(part, ast.Constant) else "(.+)" for part in node.values]
                    patterns.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    patterns.append(re.escape(node.value))
    return [re.compile(pattern) for pattern in set(patterns) if len(re.sub(r"\(\.\+\)", "", pattern)) > 12]


NODE_IDS = sorted(schemas())


def test_all_nodes_are_found():
    listed = [name for path in (ROOT / "nodes").glob("*.py") for name in _listed_nodes(path)]
    assert len(NODE_IDS) == len(listed) > 0
    assert all(node_id.startswith("DualReal") for node_id in NODE_IDS)


def _listed_nodes(path: Path) -> list[str]:
    """Names in a file's own list NODES."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.AnnAssign) and statement.target.id == "NODES" and isinstance(statement.value, ast.List):
            return [element.id for element in statement.value.elts if isinstance(element, ast.Name)]
    return []


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_everything_in_the_source_is_explained(node_id: str):
    schema = schemas()[node_id]
    assert schema["description"] and schema["category"] == "DualReal"
    for part in [*schema["inputs"], *schema["outputs"]]:
        assert part.tooltip, f"{part.name} has no tooltip"
        assert len(part.tooltip) > 10 and part.tooltip.endswith("."), f"{part.name}: {part.tooltip!r}"


def test_japanese_labels_are_of_exactly_these_nodes():
    assert sorted(labels()) == NODE_IDS


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_input_and_output_has_a_japanese_label(node_id: str):
    own, schema = labels()[node_id], schemas()[node_id]
    inputs, outputs = own.get("inputs", {}), own.get("outputs", {})
    assert list(inputs) == [part.name for part in schema["inputs"]]
    assert list(outputs) == [str(index) for index in range(len(schema["outputs"]))]
    parts = [*inputs.values(), *outputs.values()]
    assert all(part.keys() == {"name", "tooltip"} for part in parts)
    explained = [own["description"], *(part["tooltip"] for part in parts)]
    for text in (own["display_name"], *explained, *(part["name"] for part in parts)):
        assert text.strip() == text != ""
        assert not NO_MARKUP.search(text), text
    for text in explained:
        assert re.search(r"[\u3040-\u30ff]", text), text


def test_help_pages_are_of_exactly_these_nodes():
    found = {path.relative_to(ROOT / "web" / "docs") for path in (ROOT / "web" / "docs").rglob("*") if path.is_file()}
    assert found == {page(node_id, language).relative_to(ROOT / "web" / "docs") for node_id in NODE_IDS for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_page_names_every_input_and_output(node_id: str, language: str):
    text, schema = page(node_id, language).read_text(encoding="utf-8"), schemas()[node_id]
    title = schema["display_name"] if language == "en" else labels()[node_id]["display_name"]
    assert text.startswith(f"# {title}\n")
    entries = re.findall(r"^- \*\*`([^`]+)`\*\*(.*)$", text, re.MULTILINE)
    assert [name for name, _ in entries] == [part.name for part in [*schema["inputs"], *schema["outputs"]]]
    for part, (_, entry) in zip(schema["inputs"], entries, strict=False):
        if {"default", "min", "max"} <= set(part.kwargs):
            shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in map(part.kwargs.get, ("default", "min", "max"))]
            assert "{} ({}–{})".format(*shown) in entry, part.name


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_page_quotes_real_messages(node_id: str, language: str):
    text = page(node_id, language).read_text(encoding="utf-8")
    quoted = re.findall(r"^- `([^`]+)`", text, re.MULTILINE)
    assert quoted or node_id in SILENT
    for message in quoted:
        assert any(pattern.fullmatch(message) for pattern in messages()), f"no such text in the source: {message}"


def test_both_languages_quote_the_same_messages():
    for node_id in NODE_IDS:
        quotes = [re.findall(r"^- `([^`]+)`", page(node_id, language).read_text(encoding="utf-8"), re.MULTILINE) for language in LANGUAGES]
        assert quotes[0] == quotes[1], node_id
