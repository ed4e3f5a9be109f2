"""Pairs on disk, LoRAs as one side of a pair, and two one-sided pairs as one."""

from __future__ import annotations

from itertools import count
from pathlib import Path, PurePath
from typing import ClassVar

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dualreal_core.errors import InputError
from ..dualreal_core.method.combine import combine, combine_headers
from ..dualreal_core.method.pair import Role
from ..dualreal_core.storage import load_pair, save_pair
from .gate_words import on_gate
from .lora_import import import_lora
from .progress import told
from .types import CATEGORY, PairType, TrainedPair

PAIRS = "dualreal"
LORAS = "loras"
PAIR_EXTENSIONS = {".safetensors", ".pth"}
LORA_TOOLTIP = (
    "A LoRA of this very model, from models/loras, of any kind (LoRA, LoKr, LoHa, DoRA, OFT ...) and in any key naming. The preview says "
    "what of it acts by stage and depth, what with a constant strength, and what is left out, as a text encoder part."
)


def register_pair_folder() -> None:
    """Makes models/dualreal a model folder of ComfyUI, beside those its configuration may name; nothing is created."""
    own = str(Path(folder_paths.models_dir) / PAIRS)
    others = [path for path in folder_paths.folder_names_and_paths.get(PAIRS, ([], set()))[0] if path != own]
    folder_paths.folder_names_and_paths[PAIRS] = ([own, *others], PAIR_EXTENSIONS)


class LoadPair(io.ComfyNode):
    """A pair from models/dualreal."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealLoadPair",
            display_name="Load Pair",
            category=CATEGORY,
            description="Loads a trained pair, or a checkpoint of the paper's implementation, from models/dualreal.",
            search_aliases=["dualreal", "load adapter", "identity motion pair"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=folder_paths.get_filename_list(PAIRS),
                    tooltip="A file in models/dualreal: what Save Pair wrote (.safetensors), or the paper's implementation (.pth).",
                )
            ],
            outputs=[PairType.Output(display_name="pair", tooltip="The pair, for Apply StageBlender, Combine or Save Pair.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str | None) -> str:
        return fingerprint(PAIRS, name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        with torch.inference_mode(False):
            pair, header = load_pair(file_in(PAIRS, name))
        gate = on_gate(pair, header)
        return io.NodeOutput(TrainedPair(pair.requires_grad_(False), header), ui=told(gate) if gate else None)


class LoadLora(io.ComfyNode):
    """A LoRA as one side of a pair; each side has a node of its own."""

    ROLE: ClassVar[Role]
    LEARNED: ClassVar[str]
    GIVES: ClassVar[str]
    ALIASES: ClassVar[list[str]]

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = cls.ROLE.title()
        return io.Schema(
            node_id=f"DualRealLoad{side}Lora",
            display_name=f"Load {side} LoRA",
            category=CATEGORY,
            description=f"Takes a LoRA of a {cls.LEARNED} as the {cls.ROLE} side of a pair. Alone and unblended it acts as Load LoRA at "
            "strength 1; on the sound of LTX-2 and MiniMax-H3 only by audio_strength of Apply StageBlender.",
            search_aliases=["dualreal", *cls.ALIASES, "load lora"],
            inputs=[
                io.Model.Input("model", tooltip="The video model that the LoRA was made for. It is only looked at, not changed."),
                io.Combo.Input("lora", options=folder_paths.get_filename_list(LORAS), tooltip=LORA_TOOLTIP),
            ],
            outputs=[PairType.Output(display_name="pair", tooltip=cls.GIVES)],
        )

    @classmethod
    def fingerprint_inputs(cls, lora: str | None, model: None = None) -> str:
        return fingerprint(LORAS, lora)

    @classmethod
    def execute(cls, model: ModelPatcher, lora: str) -> io.NodeOutput:
        pair, note = import_lora(model, file_in(LORAS, lora), cls.ROLE)
        return io.NodeOutput(pair, ui=told(note) if note else None)


class LoadIdentityLora(LoadLora):
    """A LoRA as the identity side of a pair."""

    ROLE = "identity"
    LEARNED = "subject"
    GIVES = "A pair with an identity alone: Combine it with a motion."
    ALIASES: ClassVar[list[str]] = ["subject lora", "character lora"]


class LoadMotionLora(LoadLora):
    """A LoRA as the motion side of a pair."""

    ROLE = "motion"
    LEARNED = "motion"
    GIVES = "A pair with a motion alone: Combine it with an identity."
    ALIASES: ClassVar[list[str]] = ["motion lora", "action lora"]


class Combine(io.ComfyNode):
    """One pair out of two."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealCombine",
            display_name="Combine",
            category=CATEGORY,
            description="Joins the identity of one pair and the motion of another. Sides that were trained together fuse better.",
            search_aliases=["dualreal", "merge lora", "identity motion pair"],
            inputs=[
                PairType.Input("identity", tooltip="The pair whose identity is taken; its motion is left out."),
                PairType.Input("motion", tooltip="The pair whose motion is taken, made for the same model; its identity is left out."),
            ],
            outputs=[
                PairType.Output(
                    display_name="pair",
                    tooltip="Both sides, without a learned blend: on their common share schedule, or to be weighed by Fixed or Schedule "
                    "Blend.",
                )
            ],
        )

    @classmethod
    def execute(cls, identity: TrainedPair, motion: TrainedPair) -> io.NodeOutput:
        return io.NodeOutput(joined(identity, motion))


class SavePair(io.ComfyNode):
    """A pair to models/dualreal."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealSavePair",
            display_name="Save Pair",
            category=CATEGORY,
            description="Writes a pair to models/dualreal, where Load Pair finds it. Existing files are never overwritten.",
            search_aliases=["dualreal", "save adapter", "export pair"],
            is_output_node=True,
            inputs=[
                PairType.Input("pair", tooltip="The pair to keep, with all that is known of its training."),
                io.String.Input(
                    "filename_prefix",
                    default="pair",
                    tooltip=(
                        "Beginning of the file name in models/dualreal; a number follows: 'pair' gives pair_00001_.safetensors. It may "
                        "name a subfolder, as in 'cats/playful'; %year%, %month%, %day%, %hour%, %minute% and %second% are filled in."
                    ),
                ),
                io.String.Input(
                    "consent",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "A note kept in the file: who agreed to the use of the photos and clips, and for what. It is added to notes that "
                        "the pair already carries."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, pair: TrainedPair, filename_prefix: str, consent: str = "") -> io.NodeOutput:
        path, name = new_file(PAIRS, filename_prefix)
        notes = [note for note in (pair.header.get("consent"), consent.strip()) if note]
        header = {**pair.header, "consent": "\n".join(dict.fromkeys(notes))} if notes else pair.header
        save_pair(path, pair.pair, header)
        said = " ".join(filter(None, (f"Saved as {name} in models/{PAIRS}.", on_gate(pair.pair, header), _not_saved(pair))))
        return io.NodeOutput(ui=told(said))


def joined(identity: TrainedPair, motion: TrainedPair) -> TrainedPair:
    """One pair of a side of each, without gradients."""
    with torch.inference_mode(False):
        pair = combine(identity.pair, motion.pair).requires_grad_(False)
    beside = identity.beside_of("identity") + motion.beside_of("motion")
    return TrainedPair(pair, combine_headers(identity.header, motion.header), beside)


def _not_saved(pair: TrainedPair) -> str:
    """What the file does not hold."""
    number = len(pair.beside)
    if not number:
        return ""
    return (
        f"What its LoRAs change with a constant strength ({number} weight{'s' * (number > 1)} outside of blocks, such as "
        f"{pair.beside[0].update.parameter}) is not in the file: load the LoRAs themselves where you need it."
    )


def file_in(folder: str, name: str) -> Path:
    """A file of a model folder by the name that lists show.

    Raises:
        InputError: there is none, or the name leads out of the folder.
    """
    path = folder_paths.get_full_path(folder, name) if name in folder_paths.get_filename_list(folder) else None
    if path is None:
        raise InputError(f"There is no {name!r} in models/{folder}: put the file there, or choose one from the list.")
    return Path(path)


def fingerprint(folder: str, name: str | None) -> str:
    """Changes when the file does; empty where its name is wired, as ComfyUI asks before it is known."""
    if name is None:
        return ""
    status = file_in(folder, name).stat()
    return f"{status.st_mtime_ns} {status.st_size}"


def new_file(kind: str, prefix: str) -> tuple[Path, str]:
    """A path in a model folder that is free, and how lists will name it.

    Raises:
        InputError: the prefix names no file, or leads out of the folder.
    """
    root = Path(folder_paths.get_folder_paths(kind)[0])
    wanted = PurePath(prefix.strip())
    leaves = wanted.is_absolute() or ".." in wanted.parts
    if leaves or not wanted.name or not prefix.isprintable() or prefix.strip().endswith(("/", "\\")):
        raise InputError(f"filename_prefix {prefix!r} names no file in models/{kind}: give a name such as 'pair' or 'cats/playful'.")
    try:
        folder, stem, number, *_ = folder_paths.get_save_image_path(str(wanted), str(root))
        numbered = (Path(folder) / f"{stem}_{index:05}_.safetensors" for index in count(number))
        path = next(path for path in numbered if not path.exists())
    except (OSError, ValueError) as error:
        raise InputError(f"filename_prefix {prefix!r} cannot be used in models/{kind} ({error}): give another name.") from error
    return path, str(path.relative_to(root))


register_pair_folder()
NODES: list[type[io.ComfyNode]] = [LoadPair, LoadIdentityLora, LoadMotionLora, Combine, SavePair]
