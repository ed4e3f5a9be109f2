"""`dualreal convert` and `dualreal combine`: LoRA files of any program to another's names, and two of them to a pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import TRANSFORMERS, TinyBase, fill, make_pair, predict

from dualreal_core.bases.folder_architecture import FolderWeights, architecture_of
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.families.published_models import PUBLISHED
from dualreal_core.method.combine import combine
from dualreal_core.method.pair import AdapterPair
from dualreal_core.storage import export_lora, load_pair, save_pair
from dualreal_core.storage.lora_file import load_side
from dualreal_core.storage.lora_file.models import KNOWN
from dualreal_core.storage.lora_models import RECOGNISED, model_of

FAMILIES = ("wan", "hunyuan", "cogvideox")


def lora_pair(base: TinyBase, seed: int = 1) -> AdapterPair:
    return fill(make_pair(base, "lora", scale=2.0, has_controller=False, num_groups=1, rank=3), seed)


def folder_of(base: TinyBase, folder: Path) -> Path:
    """A model folder with the DiT's configuration alone."""
    base.transformer.save_config(folder / "transformer")
    return folder


def deltas(path: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(path)
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    return {layer: tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"] for layer in layers}


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_the_same(family: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base = TinyBase(family, 2)
    folder, pair = folder_of(base, tmp_path / "model"), lora_pair(base)
    export_lora(tmp_path / "first.safetensors", pair, {"identity": 1.0}, "diffusers", {"prompts": {"trigger": "sks"}})
    names = {"kohya": "k.safetensors", "comfyui": "c.safetensors", "peft": "folder", "diffusers": "last.safetensors"}
    source = tmp_path / "first.safetensors"
    for form, name in names.items():
        assert main(["convert", str(source), "--to", form, "--out", str(tmp_path / name), "--base", str(folder)]) == 0
        source = tmp_path / name
    expected, found = deltas(tmp_path / "first.safetensors"), deltas(tmp_path / "last.safetensors")
    assert expected.keys() == found.keys()
    for name, delta in expected.items():
        torch.testing.assert_close(found[name], delta, rtol=1e-4, atol=1e-5)
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        assert file.metadata()["modelspec.trigger_phrase"] == "sks"
        assert json.loads(file.metadata()["dualreal_export"])["training"]["lora"] == "adapter_model.safetensors"
    assert "left out" not in capsys.readouterr().out


def test_a_pair_is_told_to_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_pair(tmp_path / "pair.safetensors", lora_pair(TinyBase("wan", 2)), {})
    assert main(["convert", str(tmp_path / "pair.safetensors"), "--out", str(tmp_path / "lora.safetensors")]) == 2
    assert "pair.safetensors is a pair file: dualreal export writes" in capsys.readouterr().err


def test_two_loras_become_a_pair(tmp_path: Path) -> None:
    base = TinyBase("wan", 2)
    folder, pairs = folder_of(base, tmp_path / "model"), {"identity": lora_pair(base), "motion": lora_pair(base, 2)}
    for role, form in (("identity", "kohya"), ("motion", "comfyui")):
        export_lora(tmp_path / f"{role}.safetensors", pairs[role], {role: 1.0}, form)
    files = [str(tmp_path / f"{role}.safetensors") for role in pairs]
    assert main(["combine", *files, "--base", str(folder), "--out", str(tmp_path / "pair.safetensors")]) == 0
    pair, header = load_pair(tmp_path / "pair.safetensors")
    assert header["sources"] == {"identity": "identity.safetensors", "motion": "motion.safetensors"}
    expected = predict(base, combine(pairs["identity"], pairs["motion"]), with_condition=False)
    torch.testing.assert_close(predict(base, pair, with_condition=False), expected, rtol=1e-4, atol=1e-4)
    save_pair(tmp_path / "trained.safetensors", pairs["identity"])
    mixed = [str(tmp_path / "trained.safetensors"), files[1], "--base", str(folder), "--out", str(tmp_path / "pair.safetensors")]
    assert main(["combine", *mixed]) == 2  # it is there
    assert main(["combine", *mixed, "--overwrite"]) == 0
    again = predict(base, load_pair(tmp_path / "pair.safetensors")[0], with_condition=False)
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


def test_files_of_both_experts_become_one_pair_and_two_files_again(tmp_path: Path) -> None:
    base = TinyBase("wan", 2)
    folder = folder_of(base, tmp_path / "model")
    for expert, seed in (("high", 1), ("low", 2)):
        export_lora(tmp_path / f"{expert}.safetensors", lora_pair(base, seed), {"identity": 1.0})
    high, low = (str(tmp_path / f"{expert}.safetensors") for expert in ("high", "low"))
    options = ["--identity-low", low, "--motion-low", low, "--base", str(folder), "--out", str(tmp_path / "pair.safetensors")]
    assert main(["combine", high, high, *options]) == 0
    assert load_pair(tmp_path / "pair.safetensors")[0].config.experts == ("high-noise", "low-noise")
    both = {f"diffusion_model.transformer_{number}.{name.removeprefix('diffusion_model.')}": tensor
            for number, file in ((1, high), (2, low)) for name, tensor in load_file(file).items()}  # fmt: skip
    save_file({name.removeprefix("diffusion_model."): tensor for name, tensor in both.items()}, tmp_path / "both.safetensors")
    command = ["convert", str(tmp_path / "both.safetensors"), "--base", str(folder), "--to", "comfyui"]
    assert main([*command, "--out", str(tmp_path / "again.safetensors")]) == 0
    for expert in ("high", "low"):
        expected, found = deltas(tmp_path / f"{expert}.safetensors"), deltas(tmp_path / f"again_{expert}_noise.safetensors")
        assert expected.keys() == found.keys()
        name = "diffusion_model.blocks.1.ffn.0"
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


KINDS = {
    "LoKr": {"lokr_w1": (4, 4), "lokr_w2": (8, 8)},
    "LoHa": {"hada_w1_a": (32, 20), "hada_w1_b": (20, 32), "hada_w2_a": (32, 20), "hada_w2_b": (20, 32)},
    "difference and bias": {"diff": (32, 32), "diff_b": (32,)},
    "LoRA with a bias": {"lora_A.weight": (2, 32), "lora_B.weight": (32, 2), "diff_b": (32,)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_written_as_they_are(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base = TinyBase("wan", 2)
    folder, generator = folder_of(base, tmp_path / "model"), torch.Generator().manual_seed(4)
    made = {f"diffusion_model.blocks.1.self_attn.q.{part}": torch.randn(shape, generator=generator) for part, shape in KINDS[kind].items()}
    save_file(made, tmp_path / "made.safetensors")
    command = ["convert", str(tmp_path / "made.safetensors"), "--base", str(folder)]
    assert main([*command, "--to", "kohya", "--out", str(tmp_path / "kohya.safetensors")]) == 0
    sides = [load_side(base.transformer, tmp_path / f"{name}.safetensors", "identity").pair for name in ("made", "kohya")]
    first, second = (predict(base, side, with_condition=False) for side in sides)
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, predict(base), atol=1e-3)
    capsys.readouterr()
    assert main([*command, "--to", "diffusers", "--out", str(tmp_path / "diffusers.safetensors")]) == 2
    named = {"difference and bias": "full differences", "LoRA with a bias": "biases"}.get(kind, kind)
    assert f"changed by {named}, which files for diffusers (load_lora_weights) do not hold: write 'comfyui'" in capsys.readouterr().err


def test_a_mix_of_other_kinds_is_their_sum(tmp_path: Path) -> None:
    base, generator = TinyBase("wan", 2), torch.Generator().manual_seed(4)
    shapes = {"identity": KINDS["LoKr"], "motion": KINDS["LoRA with a bias"]}
    for role, parts in shapes.items():
        made = {f"diffusion_model.blocks.1.self_attn.q.{part}": torch.randn(shape, generator=generator) for part, shape in parts.items()}
        save_file(made, tmp_path / f"{role}.safetensors")
    sides = {role: load_side(base.transformer, tmp_path / f"{role}.safetensors", role).pair for role in shapes}
    pair = combine(sides["identity"], sides["motion"])
    (written,) = export_lora(tmp_path / "mix.safetensors", pair, {"identity": 1.0, "motion": 1.0})
    assert (written.num_layers, written.ranks, written.kinds) == (1, (0, 0), {"full differences": 1, "biases": 1})
    assert written.num_bytes == (tmp_path / "mix.safetensors").stat().st_size
    assert {name.rpartition(".")[2] for name in load_file(tmp_path / "mix.safetensors")} == {"diff", "diff_b"}
    again = load_side(base.transformer, tmp_path / "mix.safetensors", "identity").pair
    expected = predict(base, pair, with_condition=False)
    torch.testing.assert_close(predict(base, again, with_condition=False), expected, rtol=1e-4, atol=1e-4)


def test_it_is_said_what_a_mix_of_other_kinds_costs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base, generator = TinyBase("wan", 2), torch.Generator().manual_seed(4)
    base.transformer.save_pretrained(tmp_path / "model" / "transformer")
    for role, parts in {"identity": KINDS["LoKr"], "motion": KINDS["LoRA with a bias"]}.items():
        made = {f"diffusion_model.blocks.1.self_attn.q.{part}": torch.randn(shape, generator=generator) for part, shape in parts.items()}
        save_file(made, tmp_path / f"{role}.safetensors")
    files = [str(tmp_path / f"{role}.safetensors") for role in ("identity", "motion")]
    pair, base_folder = str(tmp_path / "pair.safetensors"), str(tmp_path / "model")
    assert main(["combine", *files, "--base", base_folder, "--out", pair]) == 0
    assert main(["export", pair, "--weights", "1", "1", "--out", str(tmp_path / "mix.safetensors")]) == 0
    assert main(["inspect", pair]) == 0
    shown = capsys.readouterr().out
    rows = {row.split()[0]: row for row in shown.splitlines()}
    assert "LoKr (1 layer); " in rows["identity"] and "norm of all weights" in rows["identity"] and "rank" not in rows["identity"]
    assert "LoRA (1 layer), bias (1 layer)" in rows["motion"] or "bias (1 layer), LoRA (1 layer)" in rows["motion"]
    assert "1 layer, full differences (1 layer), biases (1 layer); " in shown and "side 'both' keeps files small" in shown
    assert main(["export", pair, "--side", "both", "--weights", "1", "1", "--out", str(tmp_path / "own.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "LoKr (1 layer)" in shown and "rank 2, biases (1 layer)" in shown and "keeps files small" not in shown


def test_what_depends_on_the_models_weights_is_said_to_stay_a_pair(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base, generator = TinyBase("wan", 2), torch.Generator().manual_seed(4)
    base.transformer.save_pretrained(tmp_path / "model" / "transformer")
    shapes = {"lora_A.weight": (2, 32), "lora_B.weight": (32, 2), "dora_scale": (32, 1)}
    made = {f"diffusion_model.blocks.1.self_attn.q.{part}": torch.rand(shape, generator=generator) for part, shape in shapes.items()}
    save_file(made, tmp_path / "dora.safetensors")
    command = ["convert", str(tmp_path / "dora.safetensors"), "--out", str(tmp_path / "out.safetensors")]
    assert main([*command, "--base", str(tmp_path / "model")]) == 2
    assert "depends on the model's own weights" in capsys.readouterr().err
    assert torch.equal(FolderWeights(tmp_path / "model")("blocks.0.ffn.net.2.bias"), base.transformer.blocks[0].ffn.net[2].bias)


def test_published_models_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert {name for names in RECOGNISED.values() for name in names} == set(PUBLISHED)
    assert set(RECOGNISED) <= {model.title for model in KNOWN}
    zeros = {
        "transformer.blocks.3.attn1.to_q.lora_A.weight": torch.ones(1, 1536),
        "transformer.blocks.3.attn1.to_q.lora_B.weight": torch.ones(1536, 1),
    }
    save_file(zeros, tmp_path / "wan.safetensors")
    assert main(["convert", str(tmp_path / "wan.safetensors"), "--out", str(tmp_path / "out.safetensors")]) == 0
    assert "read as a LoRA of Wan 2.1 1.3B" in capsys.readouterr().out
    assert set(load_file(tmp_path / "out.safetensors")) == {f"diffusion_model.blocks.3.self_attn.q.lora_{part}.weight" for part in "AB"}
    h3 = {"lora_unet_blocks_7_mlp_fc1.lora_down.weight": (1, 5376), "lora_unet_blocks_7_mlp_fc1.lora_up.weight": (28672, 1)}
    save_file({name: torch.arange(float(max(shape))).view(shape) for name, shape in h3.items()}, tmp_path / "h3.safetensors")
    assert main(["convert", str(tmp_path / "h3.safetensors"), "--to", "diffusers", "--out", str(tmp_path / "h3d.safetensors")]) == 0
    up = load_file(tmp_path / "h3d.safetensors")["transformer.transformer_blocks.7.ff.net.0.proj.lora_B.weight"]
    assert up[0] == 14336 and up[14336] == 0
    save_file({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(1, 20)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"a Wan model of another size: name the model's folder"):
        model_of(tmp_path / "other.safetensors")


def test_folders_that_hold_no_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no DiT in diffusers layout"):
        architecture_of(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "Nothing"}')
    with pytest.raises(InputError, match="names no model of diffusers"):
        architecture_of(tmp_path)
    assert set(TRANSFORMERS) >= set(FAMILIES)
