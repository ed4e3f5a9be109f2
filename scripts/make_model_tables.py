"""Writes the tables of models in README and guide, in both languages, from the models that the tests try (tests/comfyui/variants.py).

    python scripts/make_model_tables.py

A table stands between its mark and the next empty line.
"""

from __future__ import annotations

import importlib
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- scripts/make_model_tables.py -->"
sys.path.insert(0, str(ROOT / "tests" / "comfyui"))
VARIANTS = importlib.import_module("variants").VARIANTS

MAKERS = ("Wan", "SCAIL", "HuMo", "WanDancer", "Causal", "LTX", "MiniMax", "Hunyuan", "Kandinsky", "CogVideoX", "VOID")
"""How titles begin, in the order of the tables."""
SAMPLED_WITH = {"": "KSampler", "ar": "SamplerCustom + Sampler AR Video", "void": "SamplerCustom + VOIDSampler"}
"""By `sampler` of a variant."""
IN_JAPANESE = {
    "text to video": "テキストから動画",
    "image to video": "画像から動画",
    "full form": "通常形式",
    "curve form": "曲線形式",
    "Model": "モデル",
    "Class": "クラス",
    "Nodes: train": "ノード: 学習",
    "Nodes: apply": "ノード: 適用",
    "Apply and blend": "適用とブレンド",
    "Train": "学習",
    "Notes": "備考",
    "Tested how": "確認の方法",
    "yes": "可",
    "SamplerCustom + VOIDSampler": "カスタムサンプラー＋VOIDSampler",
    "SamplerCustom + Sampler AR Video": "カスタムサンプラー＋Sampler AR Video",
    "KSampler": "Kサンプラー",
    "Embedded toy model (5.3 M parameters)": "同梱の小さなモデル（530万パラメータ）",
    "trained and scored, CPU": "実際に学習して採点、CPU",
    "tiny random weights, CPU": "乱数の重みの小さなモデル、CPU",
    "VOIDSampler, never KSampler": "VOIDSamplerを使い、Kサンプラーは使わない",
    "with SamplerCustom and Sampler AR Video": "カスタムサンプラーとSampler AR Videoを使う",
    "one video at a time": "1本ずつ",
    "ComfyUI itself takes no noise mask for it": "ComfyUI自身がノイズマスクを受け付けない",
    "sound by `audio_strength`": "音声は `audio_strength`",
}
"""Cells of the tables, and phrases in others."""

PHRASES = [phrase for phrase in IN_JAPANESE if phrase[0].islower() or " never " in phrase or " itself " in phrase]


def notes(variant: object) -> str:
    """What a user must know of a model, from its line."""
    known = {
        "VOIDSampler, never KSampler": variant.sampler == "void",
        "with SamplerCustom and Sampler AR Video": variant.sampler == "ar",
        "one video at a time": variant.max_batch == 1,
        "ComfyUI itself takes no noise mask for it": not variant.takes_mask,
        "sound by `audio_strength`": bool(variant.audio_shape),
    }
    return "; ".join(note for note, is_so in known.items() if is_so)


def guide_table() -> list[list[str]]:
    """A row for each model."""
    rows = [[variant.title, f"`{variant.dit}`", "yes", "yes", notes(variant)] for variant in sorted_by_title()]
    return [["Model", "Class", "Apply and blend", "Train", "Notes"], *rows]


def readme_table() -> list[list[str]]:
    """A row for all models that are sampled alike."""
    rows = [["Embedded toy model (5.3 M parameters)", "yes", "KSampler", "trained and scored, CPU"]]
    for sampler, shown in SAMPLED_WITH.items():
        parts = [variant.title.partition(", ")[::2] for variant in sorted_by_title() if variant.sampler == sampler]
        names = []
        for model, kinds in groupby(parts, lambda part: part[0]):
            named = ", ".join(kind for _, kind in kinds if kind)
            names.append(f"{model} ({named})" if named else model)
        rows.append([", ".join(names), "yes", shown, "tiny random weights, CPU"])
    return [["Model", "Nodes: train", "Nodes: apply", "Tested how"], *rows]


def sorted_by_title() -> list:
    """Models in the order of `MAKERS`, variants of one model together."""

    def place(variant: object) -> tuple[int, str]:
        maker = max((one for one in MAKERS if variant.title.startswith(one)), key=len)
        return MAKERS.index(maker), variant.title.partition(", ")[0]

    return sorted(VARIANTS.values(), key=place)


def written(rows: list[list[str]], is_japanese: bool) -> str:
    """The table as Markdown."""
    shown = [[in_japanese(cell) for cell in row] for row in rows] if is_japanese else rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [shown[0], ["---"] * len(rows[0]), *shown[1:]])


def in_japanese(cell: str) -> str:
    if cell in IN_JAPANESE:
        return IN_JAPANESE[cell]
    for phrase in PHRASES:
        cell = cell.replace(phrase, IN_JAPANESE[phrase])
    return cell


TABLES = {
    "README.md": readme_table,
    "README.ja.md": readme_table,
    "docs/comfyui.md": guide_table,
    "docs/comfyui.ja.md": guide_table,
}


def page(name: str) -> str:
    """A page with its table as it should be.

    Raises:
        ValueError: the page has not exactly one mark.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    before, after = text.split(f"{MARK}\n")
    return f"{before}{MARK}\n{written(TABLES[name](), '.ja.' in name)}\n\n{after.partition(chr(10) * 2)[2]}"


if __name__ == "__main__":
    for name in TABLES:
        (ROOT / name).write_text(page(name), encoding="utf-8")
