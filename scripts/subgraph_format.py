"""A part of a graph as one node on the canvas: a subgraph in a template, or a blueprint, which is the subgraph alone."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from canvas_format import SLOT_HEIGHT, WIDGET_HEIGHT, Node, ObjectInfo, Output, Sheet, Socket, Widget

INPUT_NODE, OUTPUT_NODE = -10, -20
PORT_WIDTH, PORT_GAP = 140, 100
OUTER_WIDTH, OUTER_HEIGHT = 340, 420
FOOTER = 40
"""Height of the button by which Nodes 2.0 opens a subgraph."""
CATEGORY = "DualReal"


@dataclass(eq=False)
class Ports:
    """What enters a subgraph: wires, then widgets. Inside it is wired as the outputs of a node."""

    sockets: Sequence[Socket]
    id: int = INPUT_NODE

    def __getitem__(self, name: str) -> Output:
        return Output(self, [socket.name for socket in self.sockets].index(name))

    def output_type(self, index: int) -> str:
        return self.sockets[index].type


class Subgraph(Sheet):
    """A sheet with ports, of which `outputs` is filled by whoever draws it.

    Args:
        wires: name to type of what is wired to it; those in `optional` may stay unwired.
        widgets: name to type and value of what it shows of the nodes inside.
        outer: the sheet it lies on. They share their node ids, as the page asks for that.
    """

    def __init__(
        self, name: str, description: str, object_info: ObjectInfo, wires: Mapping[str, str], widgets: Mapping[str, tuple[str, object]],
        optional: Sequence[str] = (), outer: Sheet | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, object_info, outer.ids if outer else None)
        self.description = description
        self.sockets = [Socket(port, kind, port in optional) for port, kind in wires.items()]
        self.widgets = [Widget(port, kind, value, WIDGET_HEIGHT) for port, (kind, value) in widgets.items()]
        self.ports = Ports([*self.sockets, *(Socket(widget.name, widget.type) for widget in self.widgets)])
        self.outputs: dict[str, Output] = {}

    def host(self, title: str, **wires: Output) -> Node:
        """The node that stands for it. It shows no pictures of nodes inside: Nodes 2.0 alone could."""
        schema = {"output": [output.type for output in self.outputs.values()], "output_name": list(self.outputs), "display_name": ""}
        properties = {"previewExposures": []}
        return Node(0, self._identity(), schema, wires, title, self.sockets, self.widgets, properties, FOOTER, inside=self)

    def _identity(self, *part: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("dualreal/subgraph", self.name, *part))))

    def definition(self, first_link: int = 0) -> dict[str, object]:
        """As a file keeps it, its links counted from `first_link`."""
        links, nodes = self.wired_nodes(first_link)
        inner = {node["id"]: node for node in nodes}
        right = max(node.pos[0] + node.width for node in self.nodes) + PORT_GAP
        exits = []
        for slot, (label, output) in enumerate(self.outputs.items()):
            number = first_link + len(links) + 1
            inner[output.node.id]["outputs"][output.index]["links"].append(number)
            links.append([number, output.node.id, output.index, OUTPUT_NODE, slot, output.type])
            exits.append(self._port("output", slot, label, output.type, [number], right + SLOT_HEIGHT))
        entries = [
            self._port(
                "input", slot, port.name, port.type, [link[0] for link in links if link[1:3] == [INPUT_NODE, slot]], -PORT_GAP - SLOT_HEIGHT
            )
            for slot, port in enumerate(self.ports.sockets)
        ]
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        state = {"lastGroupId": 0, "lastNodeId": max(inner), "lastLinkId": first_link + len(links), "lastRerouteId": 0}
        left = -PORT_WIDTH - PORT_GAP
        return {
            "id": self._identity(),
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": INPUT_NODE, "bounding": [left, 0, PORT_WIDTH, (len(entries) + 2) * SLOT_HEIGHT]},
            "outputNode": {"id": OUTPUT_NODE, "bounding": [right, 0, PORT_WIDTH, (len(exits) + 2) * SLOT_HEIGHT]},
            "inputs": entries,
            "outputs": exits,
            "widgets": [],
            "nodes": nodes,
            "groups": self.groups_json(),
            "links": [dict(zip(keys, link, strict=True)) for link in links],
            "extra": {"workflowRendererVersion": "LG"},
            "category": CATEGORY,
            "description": self.description,
        }

    def _port(self, side: str, slot: int, label: str, kind: str, links: list[int], left: int) -> dict[str, object]:
        return {"id": self._identity(side, label), "name": label, "type": kind, "linkIds": links, "pos": [left, (slot + 1) * SLOT_HEIGHT]}


def blueprint(subgraph: Subgraph) -> dict[str, object]:
    """The file in subgraphs/: nothing but the node that stands for it."""
    sheet = Sheet(subgraph.name, subgraph.object_info, subgraph.ids)
    host = subgraph.host(subgraph.name)
    sheet.add(host)
    (entry,) = sheet.wired_nodes()[1]
    definition = subgraph.definition()
    last = {"last_node_id": host.id, "last_link_id": definition["state"]["lastLinkId"]}
    entry |= {"size": [OUTER_WIDTH, OUTER_HEIGHT]}
    shell = {"revision": 0, **last, "nodes": [entry], "links": [], "version": 0.4}
    return shell | {"definitions": {"subgraphs": [definition]}, "extra": {}}
