"""A graph, laid out in columns, written as ComfyUI keeps it: API format for /prompt, canvas format 0.4 for the page."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subgraph_format import Subgraph

ObjectInfo = Mapping[str, dict]
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE", "COMFY_DYNAMICCOMBO_V3"}
AUTOGROW, DYNAMIC_COMBO, MATCH_TYPE = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_MATCHTYPE_V3"
SEEDS = {"seed", "noise_seed"}
NOTE, NOTE_TITLES = "MarkdownNote", ("What to do", "説明")

# The page's own measures, in pixels: a node's title bar lies above its position.
TITLE_HEIGHT, SLOT_HEIGHT, WIDGET_HEIGHT, BORDER = 30, 20, 24, 14
TEXT_HEIGHT, CURVE_HEIGHT = 90, 100
COLUMN_WIDTH, COLUMN_GAP, NODE_GAP = 320, 70, 60
GROUP_PADDING, GROUP_TITLE, GROUP_GAP = 20, 60, 60
GROUP_COLOUR = "#3f789e"
OPTIONAL_SHAPE = 7


@dataclass(frozen=True)
class Widget:
    """One value on a node; `has_control` where the page keeps 'fixed' or 'randomize' behind it. A hidden one has no height."""

    name: str
    type: str
    value: object
    height: int
    has_control: bool = False


@dataclass(frozen=True)
class Socket:
    name: str
    type: str
    is_optional: bool = False


@dataclass(frozen=True)
class Output:
    """One output of a node, to be given as another node's input."""

    node: Node
    index: int

    @property
    def type(self) -> str:
        return self.node.output_type(self.index)


@dataclass(eq=False)
class Node:
    """`values` holds what was given: widget values, and `Output`s for wires. One that stands for a subgraph has it `inside`."""

    id: int
    class_type: str
    schema: dict
    values: dict[str, object]
    title: str
    sockets: list[Socket]
    widgets: list[Widget]
    properties: dict[str, object]
    extra_height: int = 0
    pos: tuple[int, int] = (0, 0)
    width: int = COLUMN_WIDTH
    inside: Subgraph | None = None

    def __getitem__(self, name: str) -> Output:
        return Output(self, self.schema["output_name"].index(name))

    @property
    def inputs(self) -> list[Socket]:
        """As the page orders them: sockets first, then the sockets of widgets."""
        return [*self.sockets, *(Socket(widget.name, widget.type) for widget in self.widgets)]

    @property
    def height(self) -> int:
        rows = max(len(self.sockets), len(self.schema["output"])) * SLOT_HEIGHT
        controls = sum(widget.has_control for widget in self.widgets) * WIDGET_HEIGHT
        return BORDER + rows + controls + sum(widget.height for widget in self.widgets) + self.extra_height

    def output_type(self, index: int) -> str:
        kind = self.schema["output"][index]
        wired = [value for value in self.values.values() if isinstance(value, Output)]
        return wired[0].type if kind == MATCH_TYPE and wired else kind


@dataclass
class Note:
    id: int
    title: str
    text: str
    pos: tuple[int, int]
    size: tuple[int, int]


@dataclass
class Group:
    title: str
    left: int
    nodes: list[Node] = field(default_factory=list)


class Sheet:
    """A graph that grows from left to right: `group` opens a group, `column` a column in it, `node` adds below the last one."""

    def __init__(self, name: str, object_info: ObjectInfo, ids: Iterator[int] | None = None) -> None:
        self.name, self.object_info = name, object_info
        self.ids = ids or count(1)
        self.nodes: list[Node] = []
        self.notes: list[Note] = []
        self.groups: list[Group] = []
        self.left, self.width, self.bottom = 0, 0, 0

    def note(self, texts: Sequence[str], width: int = 400, height: int = 500) -> None:
        """What to do, beside the graph: a note in English, and one in Japanese below it."""
        self.column(width)
        for title, text in zip(NOTE_TITLES, texts, strict=False):
            self.notes.append(Note(next(self.ids), title, text, (self.left, self.bottom), (width, height)))
            self.bottom += height + NODE_GAP

    def group(self, title: str, width: int = COLUMN_WIDTH) -> None:
        self.left += self.width + (GROUP_GAP + GROUP_PADDING if self.width else GROUP_PADDING)
        self.width, self.bottom = width, 0
        self.groups.append(Group(title, self.left))

    def column(self, width: int = COLUMN_WIDTH) -> None:
        self.left += self.width + (COLUMN_GAP if self.width else 0)
        self.width, self.bottom = width, 0

    def node(
        self,
        class_type: str,
        title: str | None = None,
        extra_height: int = 0,
        properties: Mapping[str, object] | None = None,
        **values: object,
    ) -> Node:
        """Adds a node; `values` are widget values and outputs of other nodes, a dotted name as `format__codec`."""
        if class_type not in self.object_info:
            raise KeyError(f"{self.name}: this ComfyUI has no node {class_type}")
        schema = self.object_info[class_type]
        values = {name.replace("__", "."): value for name, value in values.items()}
        sockets, widgets = _split_inputs(schema, values)
        unknown = set(values) - {item.name for item in (*sockets, *widgets)}
        if unknown:
            raise KeyError(f"{self.name}: {class_type} has no input {', '.join(sorted(unknown))}")
        title = title or schema["display_name"] or class_type
        return self.add(Node(0, class_type, schema, values, title, sockets, widgets, dict(properties or {}), extra_height))

    def add(self, node: Node) -> Node:
        """Places a node below the last one."""
        node.id, node.pos, node.width = next(self.ids), (self.left, self.bottom), self.width
        self.bottom += node.height + NODE_GAP
        self.nodes.append(node)
        if self.groups:
            self.groups[-1].nodes.append(node)
        return node

    def api(self, place: str = "", given: Mapping[str, object] | None = None) -> dict[str, dict]:
        """What /prompt takes.

        Args:
            place: of a subgraph, what its nodes' keys begin with.
            given: of a subgraph, what its ports bring: wires and values.
        """
        graph = {}
        for node in self.nodes:
            key = f"{place}{node.id}"
            wires = {name: _link(value, place, given or {}) for name, value in node.values.items() if isinstance(value, Output)}
            wires = {name: wire for name, wire in wires.items() if wire is not None}
            inputs = {widget.name: widget.value for widget in node.widgets} | wires
            if node.inside:
                graph |= node.inside.api(f"{key}:", inputs)
                continue
            graph[key] = {"class_type": node.class_type, "inputs": inputs, "_meta": {"title": node.title}}
        return graph

    def canvas(self) -> dict[str, object]:
        """What the page opens."""
        links, nodes = self.wired_nodes()
        order = len(nodes)
        notes = [_note_json(note, order + index) for index, note in enumerate(self.notes)]
        last_node, last_link, definitions = max(node["id"] for node in nodes + notes), len(links), []
        for node in self.nodes:
            if node.inside:
                definitions.append(node.inside.definition(last_link))
                state = definitions[-1]["state"]
                last_node, last_link = max(last_node, state["lastNodeId"]), state["lastLinkId"]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"dualreal/{self.name}")),
            "revision": 0,
            "last_node_id": last_node,
            "last_link_id": last_link,
            "nodes": nodes + notes,
            "links": links,
            "groups": self.groups_json(),
            **({"definitions": {"subgraphs": definitions}} if definitions else {}),
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [60, 120]}},
            "version": 0.4,
        }

    def groups_json(self) -> list[dict]:
        return [_group_json(index, group) for index, group in enumerate(self.groups, start=1)]

    def wired_nodes(self, first_link: int = 0) -> tuple[list[list], list[dict]]:
        """Links as [id, from node, from slot, to node, to slot, type], and the nodes that name them."""
        links: list[list] = []
        incoming: dict[tuple[int, int], int] = {}
        for node in self.nodes:
            for slot, socket in enumerate(node.inputs):
                value = node.values.get(socket.name)
                if isinstance(value, Output):
                    links.append([first_link + len(links) + 1, value.node.id, value.index, node.id, slot, value.type])
                    incoming[node.id, slot] = links[-1][0]
        return links, [_node_json(node, order, links, incoming) for order, node in enumerate(self.nodes)]


def _link(output: Output, place: str, given: Mapping[str, object]) -> object | None:
    """Key and slot of a node that runs: an output of a subgraph is one of a node inside, a port of it what is given to it outside."""
    if not isinstance(output.node, Node):
        return given.get(output.node.sockets[output.index].name)
    inside = output.node.inside
    if inside is None:
        return [f"{place}{output.node.id}", output.index]
    return _link(list(inside.outputs.values())[output.index], f"{place}{output.node.id}:", {})


def widgets_of(schema: dict) -> list[Widget]:
    """What a node shows as it is added to the canvas."""
    return _split_inputs(schema, {})[1]


def _split_inputs(schema: dict, values: Mapping[str, object]) -> tuple[list[Socket], list[Widget]]:
    sockets: list[Socket] = []
    widgets: list[Widget] = []
    for kind, is_optional in (("required", False), ("optional", True)):
        for name, spec in schema["input"].get(kind, {}).items():
            options = spec[1] if len(spec) > 1 else {}
            shown = spec[0] if isinstance(spec[0], list) else options.get("widgetType", spec[0])
            if spec[0] == AUTOGROW:
                grown = [value for value in values if value.startswith(f"{name}.")]
                # The page always shows one empty slot behind the last wire.
                prefix = options["template"]["prefix"]
                sockets += [Socket(one, _wire_type(values[one]), index > 0) for index, one in enumerate(grown)]
                sockets.append(Socket(f"{name}.{prefix}{len(grown)}", sockets[-1].type, True))
            elif (isinstance(shown, list) or shown in WIDGET_TYPES) and not options.get("forceInput"):
                widgets += _widgets(name, shown, options, values)
            else:
                sockets.append(Socket(name, spec[0], is_optional))
    return sockets, widgets


def _wire_type(value: object) -> str:
    return value.type if isinstance(value, Output) else "*"


def _widgets(name: str, kind: str | list, options: dict, values: Mapping[str, object]) -> Iterator[Widget]:
    """The widget of an input, and those behind the chosen entry of a dynamic combo."""
    choices = kind if isinstance(kind, list) else options.get("options", [])
    first = choices[0] if choices else ""
    default = options.get("default", first["key"] if isinstance(first, dict) else first)
    if not choices and "default" not in options:
        default = {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(str(kind), "")
    given = values.get(name, default)
    control = options.get("control_after_generate", name in SEEDS)
    is_tall = kind == "CURVE" or options.get("multiline")
    height = WIDGET_HEIGHT if not is_tall else CURVE_HEIGHT if kind == "CURVE" else TEXT_HEIGHT
    height = 0 if options.get("hidden") else height
    value = default if isinstance(given, Output) else given
    yield Widget(name, "COMBO" if isinstance(kind, list) else kind, value, height, bool(control))
    if kind == DYNAMIC_COMBO:
        chosen = next(choice for choice in choices if choice["key"] == given)
        for group in ("required", "optional"):
            for inner, spec in chosen["inputs"].get(group, {}).items():
                yield from _widgets(f"{name}.{inner}", spec[0], spec[1] if len(spec) > 1 else {}, values)


def _node_json(node: Node, order: int, links: list[list], incoming: Mapping[tuple[int, int], int]) -> dict[str, object]:
    inputs = []
    for slot, socket in enumerate(node.inputs):
        entry: dict[str, object] = {"name": socket.name, "type": socket.type, "link": incoming.get((node.id, slot))}
        if socket.is_optional:
            entry["shape"] = OPTIONAL_SHAPE
        if slot >= len(node.sockets):
            entry["widget"] = {"name": socket.name}
        inputs.append(entry)
    names = node.schema["output_name"]
    outgoing = [[link[0] for link in links if link[1:3] == [node.id, index]] for index in range(len(names))]
    widget_values: list[object] = []
    for widget in node.widgets:
        widget_values += [widget.value, "fixed"] if widget.has_control else [widget.value]
    entry = {
        "id": node.id,
        "type": node.class_type,
        "pos": list(node.pos),
        "size": [node.width, node.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": name, "type": node.output_type(index), "links": outgoing[index]} for index, name in enumerate(names)],
        "properties": {**({} if node.inside else {"Node name for S&R": node.class_type}), **node.properties},
        "widgets_values": widget_values,
    }
    has_own_title = node.title != (node.schema["display_name"] or node.class_type)
    return entry | ({"title": node.title} if has_own_title else {})


def _note_json(note: Note, order: int) -> dict[str, object]:
    place = {"pos": list(note.pos), "size": list(note.size)}
    shell = {"flags": {}, "order": order, "mode": 0, "inputs": [], "outputs": [], "properties": {}}
    content = {"widgets_values": [note.text], "color": "#222", "bgcolor": "#000"}
    return {"id": note.id, "type": NOTE, "title": note.title, **place, **shell, **content}


def _group_json(index: int, group: Group) -> dict[str, object]:
    right = max(node.pos[0] + node.width for node in group.nodes)
    bottom = max(node.pos[1] + node.height for node in group.nodes)
    top = -TITLE_HEIGHT - GROUP_TITLE
    box = [group.left - GROUP_PADDING, top, right - group.left + 2 * GROUP_PADDING, bottom - top + GROUP_PADDING]
    return {"id": index, "title": group.title, "bounding": box, "color": GROUP_COLOUR, "font_size": 24, "flags": {}}
