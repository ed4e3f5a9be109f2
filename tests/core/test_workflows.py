"""Templates, their API twins and the blueprint as files: whole, in step with each other, and free of this machine."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from itertools import combinations, pairwise
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from test_pack_files import schemas

from dualreal_core.training.recipes import DUALREAL

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
NAMES = ["1_quick_start", "2_train_on_wan", "3_apply_a_pair", "4_blend_two_loras", "5_batch", "6_wan22_4_steps", "7_ltx23", "8_minimax_h3"]
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
STOCK_NODES = {
    "BasicGuider", "BasicScheduler", "CFGGuider", "CLIPLoader", "CLIPTextEncode", "CheckpointLoaderSimple", "CreateList", "CreateVideo",
    "EmptyHunyuanLatentVideo", "EmptyLTXVLatentVideo", "ImageScale", "KSampler", "KSamplerAdvanced", "KSamplerSelect",
    "LTXAVTextEncoderLoader", "LTXVAudioVAEDecode", "LTXVAudioVAELoader", "LTXVConcatAVLatent", "LTXVConditioning",
    "LTXVEmptyLatentAudio", "LTXVImgToVideoInplace", "LTXVLatentUpsampler", "LTXVPreprocess", "LTXVSeparateAVLatent",
    "LatentUpscaleModelLoader", "LoadImage", "LoadImageTextDataSetFromFolder", "LoadVideoTextDataSetFromFolder", "LoraLoaderModelOnly",
    "LossGraphNode", "ManualSigmas", "MarkdownNote", "MiniMaxH3ImageToVideo", "ModelSamplingSD3", "PreviewImage", "PrimitiveInt",
    "PrimitiveString", "RandomNoise", "SamplerCustomAdvanced", "SaveImage", "SaveVideo", "UNETLoader", "VAEDecode", "VAEDecodeAudio",
    "VAEDecodeTiled", "VAELoader", "WanImageToVideo",
}  # fmt: skip
LOADERS = {
    "UNETLoader": {"unet_name": "diffusion_models"}, "CLIPLoader": {"clip_name": "text_encoders"}, "VAELoader": {"vae_name": "vae"},
    "CheckpointLoaderSimple": {"ckpt_name": "checkpoints"}, "LoraLoaderModelOnly": {"lora_name": "loras"},
    "LTXAVTextEncoderLoader": {"text_encoder": "text_encoders", "ckpt_name": "checkpoints"},
    "LTXVAudioVAELoader": {"ckpt_name": "checkpoints"}, "LatentUpscaleModelLoader": {"model_name": "latent_upscale_models"},
}  # fmt: skip
"""Inputs that name files, and the folders below models that hold them."""
CONTROLS = ("fixed", "randomize", "increment", "decrement")
MACHINE_PATH = re.compile(r'"(?:/|~|[A-Za-z]:\\\\)|/(?:home|root|work|tmp|Users)/')
TITLE_HEIGHT = 30

each_workflow = pytest.mark.parametrize("name", NAMES)
each_blueprint = pytest.mark.parametrize("file", BLUEPRINTS, ids=lambda file: file.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def own_nodes() -> set[str]:
    return set(schemas())


def widget_values(node: dict) -> dict[str, object]:
    """Name to value; the page keeps what becomes of a seed right behind it, without a name."""
    values = list(node["widgets_values"])
    found = {}
    for entry in node["inputs"]:
        if "widget" in entry:
            found[entry["name"]] = values.pop(0)
            if entry["type"] == "INT" and values and values[0] in CONTROLS:
                values.pop(0)
    assert values == [], f"node {node['id']} ({node['type']}) has more values than widgets"
    return found


def as_api(canvas: dict) -> dict[str, dict]:
    """What the page makes of a canvas file when Run is pressed."""
    subgraphs = {subgraph["id"]: subgraph for subgraph in canvas.get("definitions", {}).get("subgraphs", [])}
    links = {link[0]: tuple(link[1:3]) for link in canvas["links"]}
    return run_nodes(canvas["nodes"], links, subgraphs, "", [])


def run_nodes(nodes: list[dict], links: dict[int, tuple], subgraphs: dict[str, dict], place: str, given: list) -> dict[str, dict]:
    """The nodes that run, those in subgraphs under the key of the node that stands for them.

    links: number to (node it comes from, slot). given: what the ports of the subgraph bring, a wire or a value or None.
    """
    by_id = {node["id"]: node for node in nodes}

    def source(link: int) -> object:
        origin, slot = links[link]
        if origin == -10:
            return given[slot]
        key, inner = f"{place}{origin}", subgraphs.get(by_id[origin]["type"])
        if inner is None:
            return [key, slot]
        (exit_link,) = [link for link in inner["links"] if (link["target_id"], link["target_slot"]) == (-20, slot)]
        return [f"{key}:{exit_link['origin_id']}", exit_link["origin_slot"]]

    graph = {}
    for node in nodes:
        if node["type"] == "MarkdownNote":
            continue
        wires = {entry["name"]: source(entry["link"]) for entry in node["inputs"] if entry["link"] is not None}
        inputs = widget_values(node) | {name: wire for name, wire in wires.items() if wire is not None}
        inner, key = subgraphs.get(node["type"]), f"{place}{node['id']}"
        if inner is None:
            graph[key] = {"class_type": node["type"], "inputs": inputs}
            continue
        inner_links = {link["id"]: (link["origin_id"], link["origin_slot"]) for link in inner["links"]}
        brought = [inputs.get(port["name"]) for port in inner["inputs"]]
        graph |= run_nodes(inner["nodes"], inner_links, subgraphs, f"{key}:", brought)
    return graph


def all_nodes(canvas: dict) -> list[dict]:
    """Those in subgraphs included, but not those that stand for one."""
    subgraphs = canvas.get("definitions", {}).get("subgraphs", [])
    identities = {subgraph["id"] for subgraph in subgraphs}
    listed = [*canvas["nodes"], *(node for subgraph in subgraphs for node in subgraph["nodes"])]
    return [node for node in listed if node["type"] not in identities]


def check_links(nodes: list[dict], links: list[list]) -> None:
    """Both ends of every link know it, and nobody knows another."""
    by_id = {node["id"]: node for node in nodes}
    for number, origin, origin_slot, target, target_slot, kind in links:
        if origin in by_id:
            output = by_id[origin]["outputs"][origin_slot]
            assert number in output["links"] and output["type"] == kind
        if target in by_id:
            assert by_id[target]["inputs"][target_slot]["link"] == number
    known = [entry["link"] for node in nodes for entry in node["inputs"] if entry["link"] is not None]
    known += [number for node in nodes for entry in node["outputs"] for number in entry["links"] or []]
    assert set(known) <= {link[0] for link in links}


def test_the_folder_holds_these_templates_and_no_other() -> None:
    assert sorted(file.stem for file in WORKFLOWS.glob("*.json")) == NAMES
    assert sorted(file.stem for file in (WORKFLOWS / "api").glob("*.json")) == NAMES
    assert len(BLUEPRINTS) == 1


@each_workflow
def test_canvas_file_and_api_twin_are_one_graph(name: str) -> None:
    twin = read(WORKFLOWS / "api" / f"{name}.json")
    without_titles = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in twin.items()}
    assert as_api(read(WORKFLOWS / f"{name}.json")) == without_titles


@each_workflow
def test_titles_agree(name: str) -> None:
    twin = read(WORKFLOWS / "api" / f"{name}.json")
    titles = {int(key.rpartition(":")[2]): node["_meta"]["title"] for key, node in twin.items()}
    assert len(titles) == len(twin)
    for node in all_nodes(read(WORKFLOWS / f"{name}.json")):
        if "title" in node and node["type"] != "MarkdownNote":
            assert titles[node["id"]] == node["title"]


@each_workflow
def test_canvas_file_is_sound(name: str) -> None:
    canvas = read(WORKFLOWS / f"{name}.json")
    subgraphs = canvas.get("definitions", {}).get("subgraphs", [])
    # The page gives nodes and links of subgraphs new numbers where they are not the only ones of theirs.
    ids = [node["id"] for part in (canvas, *subgraphs) for node in part["nodes"]]
    numbers = [link[0] for link in canvas["links"]] + [link["id"] for subgraph in subgraphs for link in subgraph["links"]]
    assert len(set(ids)) == len(ids) and max(ids) == canvas["last_node_id"]
    assert len(set(numbers)) == len(numbers) and max(numbers) == canvas["last_link_id"]
    assert canvas["version"] == 0.4
    check_links(canvas["nodes"], canvas["links"])
    for subgraph in subgraphs:
        check_subgraph(subgraph, next(node for node in canvas["nodes"] if node["type"] == subgraph["id"]))
    assert canvas["groups"]


def test_the_quick_start_is_small() -> None:
    canvas = read(WORKFLOWS / "1_quick_start.json")
    assert len(canvas["nodes"]) <= 12


@each_workflow
def test_notes_are_in_english_and_japanese(name: str) -> None:
    notes = [node["widgets_values"][0] for node in read(WORKFLOWS / f"{name}.json")["nodes"] if node["type"] == "MarkdownNote"]
    assert notes[0].startswith("# ") and notes[0].isascii() == (len(notes) == 2)
    assert re.search("[ぁ-ん]", notes[-1])


@each_workflow
def test_loaders_name_their_files_so_that_the_page_offers_them(name: str) -> None:
    """Those that a template brings with it: LoRAs and pairs are the user's own."""
    for node in all_nodes(read(WORKFLOWS / f"{name}.json")):
        if node["type"] not in LOADERS:
            continue
        folders, values = LOADERS[node["type"]], widget_values(node)
        offered = {model["name"]: model for model in node["properties"].get("models", [])}
        asked = {values[widget]: folder for widget, folder in folders.items()}
        assert set(offered) <= set(asked) and len(offered) >= 1, node["type"]
        for file, model in offered.items():
            assert model["directory"] == asked[file]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(f"/{file}")


@each_workflow
def test_no_two_nodes_overlap(name: str) -> None:
    canvas = read(WORKFLOWS / f"{name}.json")
    for part in (canvas, *canvas.get("definitions", {}).get("subgraphs", [])):
        boxes = [(node["id"], *node["pos"], *node["size"]) for node in part["nodes"]]
        for (one, x, y, width, height), (other, x2, y2, width2, height2) in combinations(boxes, 2):
            is_beside = x + width <= x2 or x2 + width2 <= x
            assert is_beside or y + height <= y2 - TITLE_HEIGHT or y2 + height2 <= y - TITLE_HEIGHT, f"nodes {one} and {other} overlap"


@each_workflow
def test_groups_hold_their_nodes_and_do_not_overlap(name: str) -> None:
    canvas = read(WORKFLOWS / f"{name}.json")
    spans = sorted((group["bounding"][0], group["bounding"][0] + group["bounding"][2]) for group in canvas["groups"])
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    for node in canvas["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        left, top = node["pos"][0], node["pos"][1] - TITLE_HEIGHT
        right, bottom = left + node["size"][0], node["pos"][1] + node["size"][1]
        inside = [b for b in (g["bounding"] for g in canvas["groups"]) if b[0] <= left and right <= b[0] + b[2]]
        assert any(b[1] <= top and bottom <= b[1] + b[3] for b in inside), f"node {node['id']} is in no group"


@each_workflow
def test_every_node_is_known(name: str) -> None:
    types = {node["type"] for node in all_nodes(read(WORKFLOWS / f"{name}.json"))}
    assert types - own_nodes() <= STOCK_NODES
    assert any(kind.startswith("DualReal") for kind in types)


@pytest.mark.parametrize("file", [*WORKFLOWS.rglob("*.json"), *BLUEPRINTS], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_no_path_of_a_machine(file: Path) -> None:
    assert not MACHINE_PATH.findall(file.read_text(encoding="utf-8"))


@each_workflow
def test_thumbnail(name: str) -> None:
    with Image.open(WORKFLOWS / f"{name}.jpg") as picture:
        assert picture.format == "JPEG" and picture.width == 512


def check_subgraph(inner: dict, outer: dict) -> None:
    """outer: the node that stands for it."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    check_links(inner["nodes"], [[link[key] for key in keys] for link in inner["links"]])
    for side, end in (("inputs", "origin"), ("outputs", "target")):
        assert [(port["name"], port["type"]) for port in inner[side]] == [(port["name"], port["type"]) for port in outer[side]]
        for slot, port in enumerate(inner[side]):
            place = (inner[f"{side[:-1]}Node"]["id"], slot)
            wires = [link["id"] for link in inner["links"] if (link[f"{end}_id"], link[f"{end}_slot"]) == place]
            assert port["linkIds"] == wires and wires
    # What the outer node shows are widgets of nodes inside, of the same type.
    inside = {node["id"]: node for node in inner["nodes"]}
    for slot, port in enumerate(outer["inputs"]):
        if "widget" in port:
            targets = [link for link in inner["links"] if (link["origin_id"], link["origin_slot"]) == (-10, slot)]
            entries = [inside[link["target_id"]]["inputs"][link["target_slot"]] for link in targets]
            assert all("widget" in entry and entry["type"] == port["type"] for entry in entries)
    widget_values(outer)


@each_blueprint
def test_blueprint_is_sound(file: Path) -> None:
    blueprint = read(file)
    (outer,) = blueprint["nodes"]
    (inner,) = blueprint["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"] and inner["name"] == file.stem
    assert {node["type"] for node in inner["nodes"]} <= own_nodes()
    check_subgraph(inner, outer)


@pytest.fixture(scope="module")
def batch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("batch_client", WORKFLOWS / "api" / "batch.py")
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_batch_changes_nodes_by_kind_and_title(batch: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("identity,motion,prompt\ndogs/rex,dance,sks dog dancing\n", encoding="utf-8")
    (entry,) = batch.read_list(tmp_path / "jobs.csv")
    original = batch.read_graph(WORKFLOWS / "api" / "5_batch.json")
    renumbered = {f"n{key}": node for key, node in original.items()}
    filled = {node["_meta"]["title"]: node["inputs"] for node in batch.fill(renumbered, entry).values()}
    assert filled["Photos of the identity"]["folder"] == "dogs/rex"
    assert filled["Clips of the motion"]["folder"] == "dance"
    assert filled["Prompt"]["text"] == "sks dog dancing"
    assert filled["Negative prompt"]["text"] == ""
    assert filled["Joint Trainer"]["name"] == "dogs-rex dance"
    assert filled["Save Video"]["filename_prefix"] == "batch/fused/001 dogs-rex dance"
    assert original == batch.read_graph(WORKFLOWS / "api" / "5_batch.json")


def test_batch_entries_of_one_pair_share_its_run_wherever_they_stand(batch: ModuleType, tmp_path: Path) -> None:
    rows = ["犬,踊り,a dog dances", "rex,jump,rex jumps", "犬,踊り,a dog dances in the rain"]
    (tmp_path / "jobs.csv").write_text("\n".join(["identity,motion,prompt", *rows]), encoding="utf-8")
    entries = batch.read_list(tmp_path / "jobs.csv")
    assert [entry.run for entry in entries] == ["犬 踊り", "rex jump", "犬 踊り"]
    assert [entry.name for entry in entries] == ["001 犬 踊り", "002 rex jump", "003 犬 踊り"]


@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_batch_reads_what_spreadsheets_write(batch: ModuleType, tmp_path: Path, comma: str) -> None:
    lines = [comma.join(("identity", "motion", "prompt")), comma.join(("dog", "jump", '"a dog, it jumps; high"'))]
    (tmp_path / "jobs.csv").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    (entry,) = batch.read_list(tmp_path / "jobs.csv")
    assert (entry.identity, entry.motion, entry.prompt) == ("dog", "jump", "a dog, it jumps; high")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", "identity,motion,prompt\n", "holds no entries"),
        ("gap.csv", "identity,motion,prompt\na,,c\n", "entry 1: motion is missing"),
        ("columns.csv", "who,how\na,b\n", "no column identity, motion, prompt"),
        ("list.json", '{"identity": "a"}', "holds no list of objects"),
        ("broken.json", "[", "cannot be read as JSON"),
    ],
)
def test_batch_refuses_a_bad_list_in_one_sentence(batch: ModuleType, tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(batch.BatchError, match=re.escape(said)):
        batch.read_list(tmp_path / name)


def test_batch_refuses_a_canvas_file(batch: ModuleType) -> None:
    with pytest.raises(batch.BatchError, match="not in API format"):
        batch.read_graph(WORKFLOWS / "5_batch.json")


def test_batch_refuses_a_graph_with_a_node_without_inputs(batch: ModuleType, tmp_path: Path) -> None:
    graph = json.loads((WORKFLOWS / "api" / "5_batch.json").read_text(encoding="utf-8"))
    del next(node for node in graph.values() if "Load" in node["class_type"])["inputs"]
    (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    with pytest.raises(batch.BatchError, match="not in API format"):
        batch.read_graph(tmp_path / "graph.json")


def test_batch_without_a_server(batch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"identity": "a", "motion": "b", "prompt": "c"}]), encoding="utf-8")
    arguments = [str(WORKFLOWS / "api" / "5_batch.json"), str(jobs), "--server", "http://127.0.0.1:9", "--out", str(tmp_path / "out")]
    assert batch.main(arguments) == 2
    assert capsys.readouterr().err.startswith("There is no ComfyUI at http://127.0.0.1:9")


@each_workflow
def test_templates_train_by_the_recipe_that_was_measured(name: str) -> None:
    """A template keeps the values that the node had when it was written; these are to follow the recipe."""
    train = DUALREAL.train
    recipe = {
        "frozen_adapter_dropout": train.frozen_adapter_dropout, "preservation_ratio": train.preservation_ratio,
        "timestep_bias": train.timestep_bias, "has_controller": DUALREAL.pair["has_controller"], "share_schedule": "motion fades",
    }  # fmt: skip
    nodes = [node for node in read(WORKFLOWS / "api" / f"{name}.json").values() if node["class_type"] == "DualRealTrainingOptions"]
    assert bool(nodes) == (name in ("1_quick_start", "5_batch"))  # without the node its defaults hold, which are the recipe's
    for node in nodes:
        assert {key: node["inputs"][key] for key in recipe} == recipe
