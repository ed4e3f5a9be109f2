"""A sheet as a subgraph blueprint: one node on the canvas, with the sheet inside."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from canvas_format import SLOT_HEIGHT, Node, Output, Sheet, Socket

INPUT_NODE, OUTPUT_NODE = -10, -20
PORT_WIDTH, PORT_GAP = 140, 100
OUTER_WIDTH, OUTER_HEIGHT = 340, 420


@dataclass(frozen=True)
class Port:
    """An input of the blueprint, and the sockets inside that it feeds."""

    name: str
    type: str
    targets: Sequence[tuple[Node, str]]
    is_optional: bool = False


def blueprint(
    sheet: Sheet, name: str, description: str, ports: Sequence[Port], outputs: Sequence[Output], shown: Sequence[tuple[Node, str]]
) -> dict[str, object]:
    """The file in subgraphs/.

    Args:
        outputs: what leaves the blueprint, in order.
        shown: widgets of inner nodes that the outer node shows, in order.
    """
    links, nodes = sheet.wired_nodes()
    links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True)) for link in links]
    inner = {node["id"]: node for node in nodes}
    left = -PORT_WIDTH - PORT_GAP
    right = max(node.pos[0] + node.width for node in sheet.nodes) + PORT_GAP
    inputs = [_input(name, port, slot, left, links, inner) for slot, port in enumerate(ports)]
    exits = [_output(name, output, slot, right, links, inner) for slot, output in enumerate(outputs)]
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"dualreal/blueprint/{name}"))
    definition = {
        "id": identity,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INPUT_NODE, "bounding": [left, 0, PORT_WIDTH, (len(ports) + 2) * SLOT_HEIGHT]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [right, 0, PORT_WIDTH, (len(exits) + 2) * SLOT_HEIGHT]},
        "inputs": inputs,
        "outputs": exits,
        "widgets": [],
        "nodes": nodes,
        "groups": [],
        "links": links,
        "extra": {"workflowRendererVersion": "LG"},
        "category": "DualReal",
        "description": description,
    }
    outer = {
        "id": len(nodes) + 1,
        "type": identity,
        "pos": [0, 0],
        "size": [OUTER_WIDTH, OUTER_HEIGHT],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [_slot(Socket(port.name, port.type, port.is_optional)) for port in ports],
        "outputs": [{"name": exit["name"], "type": exit["type"], "links": []} for exit in exits],
        "properties": {"proxyWidgets": [[str(node.id), widget] for node, widget in shown]},
        "widgets_values": [],
        "title": name,
    }
    shell = {"revision": 0, "last_node_id": outer["id"], "last_link_id": 0, "nodes": [outer], "links": [], "version": 0.4}
    return shell | {"definitions": {"subgraphs": [definition]}, "extra": {}}


def _slot(socket: Socket) -> dict[str, object]:
    entry: dict[str, object] = {"name": socket.name, "type": socket.type, "link": None}
    return entry | ({"shape": 7} if socket.is_optional else {})


def _input(name: str, port: Port, slot: int, left: int, links: list[dict], inner: dict[int, dict]) -> dict[str, object]:
    ids = []
    for node, socket in port.targets:
        index = [entry.name for entry in node.inputs].index(socket)
        ids.append(len(links) + 1)
        inner[node.id]["inputs"][index]["link"] = ids[-1]
        links.append(_wire(ids[-1], INPUT_NODE, slot, node.id, index, port.type))
    return _port(name, "input", port.name, port.type, ids, [left + PORT_WIDTH - SLOT_HEIGHT, (slot + 1) * SLOT_HEIGHT])


def _output(name: str, output: Output, slot: int, right: int, links: list[dict], inner: dict[int, dict]) -> dict[str, object]:
    link = len(links) + 1
    inner[output.node.id]["outputs"][output.index]["links"].append(link)
    links.append(_wire(link, output.node.id, output.index, OUTPUT_NODE, slot, output.type))
    label = output.node.schema["output_name"][output.index]
    return _port(name, "output", label, output.type, [link], [right + SLOT_HEIGHT, (slot + 1) * SLOT_HEIGHT])


def _wire(link: int, origin: int, origin_slot: int, target: int, target_slot: int, kind: str) -> dict[str, object]:
    ends = {"origin_id": origin, "origin_slot": origin_slot, "target_id": target, "target_slot": target_slot}
    return {"id": link, **ends, "type": kind}


def _port(name: str, side: str, label: str, kind: str, links: list[int], pos: list[int]) -> dict[str, object]:
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"dualreal/blueprint/{name}/{side}/{label}"))
    return {"id": identity, "name": label, "type": kind, "linkIds": links, "pos": pos}
