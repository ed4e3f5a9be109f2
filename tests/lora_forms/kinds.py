"""Updates that are no plain LoRA: LoKr, LoHa, OFT, BOFT, GLoRA, IA3, and whole differences of weights."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from . import definitions
from .layers import COGVIDEOX, HUNYUAN, WAN, cogvideox_name, flat, renamed, wan_name
from .other_trainers import OFFICIAL, hunyuan_of
from .sheet import Form, Rows, Sheet

RANK = 2


def lokr(
    sheet: Sheet, layer: str, name: str, form: str, *, alpha: torch.Tensor | None = None, scale: float | None = None,
    rows: Rows | None = None, factor: int = 8,
) -> None:  # fmt: skip
    """form: 'full', 'w2' (of it two matrices), 'w1' or 'both'. Alpha counts where there are matrices, over their rank."""
    out, inner = sheet.widths(layer, rows)
    sizes = {"w1": (factor, factor), "w2": (out // factor, inner // factor)}
    factors = {}
    for key, (high, wide) in sizes.items():
        spread = 0.5 if key == "w1" else 1.0 / wide**0.5
        if form in (key, "both"):
            a = sheet.put(f"{name}.lokr_{key}_a", spread * sheet.noise(high, RANK))
            factors[key] = a @ sheet.put(f"{name}.lokr_{key}_b", sheet.noise(RANK, wide))
        else:
            factors[key] = sheet.put(f"{name}.lokr_{key}", spread * sheet.noise(high, wide))
    if alpha is not None:
        sheet.tensors[f"{name}.alpha"] = alpha.clone()
    if scale is None:
        scale = 1.0 if form == "full" or alpha is None else float(alpha.double()) / RANK
    sheet.change(f"{layer}.weight", definitions.kronecker(factors["w1"], factors["w2"], scale), rows)


def loha(sheet: Sheet, layer: str, name: str, *, alpha: float | None = None, scale: float | None = None, rank: int = 4) -> None:
    out, inner = sheet.widths(layer)
    a = [sheet.put(f"{name}.hada_w{n}_a", 0.4 * sheet.noise(out, rank)) for n in (1, 2)]
    b = [sheet.put(f"{name}.hada_w{n}_b", sheet.noise(rank, inner) / inner**0.25) for n in (1, 2)]
    if alpha is not None:
        sheet.tensors[f"{name}.alpha"] = torch.tensor(alpha)
    scale = scale if scale is not None else 1.0 if alpha is None else alpha / rank
    sheet.change(f"{layer}.weight", definitions.hadamard(a[0], b[0], a[1], b[1], scale))


def each(
    layers: tuple[str, ...], naming: Callable[[str], str], one: Callable[..., None], dtype: torch.dtype = torch.float32, **how: object
):
    def write(sheet: Sheet) -> None:
        sheet.dtype = dtype
        for layer in layers:
            one(sheet, layer, naming(layer), **how)

    return write


def kohya(layer: str) -> str:
    return f"lora_unet_{flat(layer)}"


def simpletuner_lokr(sheet: Sheet) -> None:
    for layer in WAN:
        lokr(sheet, layer, f"lycoris_{flat(wan_name(layer))}", "w2", alpha=torch.tensor(1.0))
    sheet.metadata["lycoris_config"] = json.dumps({"algo": "lokr", "multiplier": 1.0, "linear_dim": 2, "linear_alpha": 1, "factor": 4})


def peft_folder(kind: str, one: Callable[..., None], naming: str = "base_model.model.{}", **fields: object):
    """peft's own configuration says how strong it is: alpha over r, whatever the parts."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            one(sheet, layer, naming.format(wan_name(layer)))
        sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": kind, "peft_version": "0.21.2", **fields}

    return write


def lokr_on_parts(sheet: Sheet) -> None:
    for part in hunyuan_of(sheet):
        lokr(sheet, part.layer, f"lycoris_{flat(part.name)}", "w2", alpha=torch.tensor(1.0), rows=part.rows)


def oft(
    sheet: Sheet, layer: str, name: str, *, block: int = 8, constraint: float | None = None, rescaled: bool = False, spread: float = 0.15
) -> None:
    """Each block as wide as `block`."""
    weight = sheet.weight(layer)
    blocks = sheet.put(f"{name}.oft_blocks", spread * sheet.noise(len(weight) // block, block, block))
    rescale = sheet.put(f"{name}.rescale", 1 + 0.1 * sheet.noise(len(weight), 1)) if rescaled else None
    if constraint is not None:
        sheet.tensors[f"{name}.alpha"] = torch.tensor(constraint)
    sheet.change(f"{layer}.weight", definitions.orthogonal_rows(weight, blocks, constraint or 0.0, rescale))


def boft(sheet: Sheet, layer: str, name: str) -> None:
    """As many levels as its rows allow."""
    weight, block = sheet.weight(layer), 8
    levels = next(number for number in range(20) if len(weight) % (block * 2**number))
    blocks = sheet.put(f"{name}.oft_blocks", 0.1 * sheet.noise(levels, len(weight) // block, block, block))
    sheet.tensors[f"{name}.alpha"] = torch.tensor(0.0)
    sheet.change(f"{layer}.weight", definitions.butterfly(weight, blocks))


def oft_on_inputs(sheet: Sheet, layer: str, name: str, *, divisor: float = 1.0, num_terms: int | None = 5, is_scaled: bool = False) -> None:
    weight, block = sheet.weight(layer), 8
    vectors = sheet.put(f"{name}.oft_R.weight", 0.1 * sheet.noise(weight.shape[1] // block, block * (block - 1) // 2))
    if is_scaled:
        sheet.tensors[f"{name}.oft_R.scaled_oft"] = torch.tensor(True)
        divisor = 2 * (block - 1) ** 0.5
    sheet.change(f"{layer}.weight", definitions.orthogonal_columns(weight, vectors, divisor, num_terms))


def glora(sheet: Sheet, layer: str, name: str) -> None:
    out, inner = sheet.widths(layer)
    shapes = {"a1": (inner, 4), "a2": (4, inner), "b1": (out, 4), "b2": (4, inner)}
    parts = {key: sheet.put(f"{name}.{key}.weight", 0.3 * sheet.noise(*shape) / shape[1] ** 0.5) for key, shape in shapes.items()}
    sheet.tensors[f"{name}.alpha"] = torch.tensor(6.0)
    sheet.change(f"{layer}.weight", definitions.generalized(sheet.weight(layer), **parts, scale=6.0 / 4))


def ia3(sheet: Sheet, layer: str, name: str, *, on_input: bool = False) -> None:
    out, inner = sheet.widths(layer)
    factors = sheet.put(f"{name}.weight", 0.3 * sheet.noise(inner if on_input else out))
    sheet.tensors[f"{name}.on_input"] = torch.tensor(int(on_input))
    sheet.change(f"{layer}.weight", definitions.amplified(sheet.weight(layer), factors[None] if on_input else factors[:, None]))


def peft_ia3(sheet: Sheet, layer: str, name: str) -> None:
    """The output is multiplied, with its bias; in feed-forward layers the input."""
    out, inner = sheet.widths(layer)
    on_input = "ffn.2" in layer
    factors = sheet.put(f"{name}.ia3_l", 1 + 0.3 * sheet.noise(*((1, inner) if on_input else (out, 1))))
    sheet.change(f"{layer}.weight", definitions.amplified(sheet.weight(layer), factors - 1))
    if not on_input:
        sheet.change(f"{layer}.bias", sheet.weights[f"{layer}.bias"].double() * (factors.flatten() - 1))


def whole(sheet: Sheet, layer: str, name: str, *, with_bias: bool = True) -> None:
    out, inner = sheet.widths(layer)
    sheet.change(f"{layer}.weight", sheet.put(f"{name}.diff", 0.3 * sheet.noise(out, inner) / inner**0.5))
    if with_bias:
        sheet.change(f"{layer}.bias", sheet.put(f"{name}.diff_b", 0.1 * sheet.noise(out)))


NATIVE = "diffusion_model.{}".format
LARGE = {"alpha": torch.tensor(1e10)}
FORMS = (
    Form("LoKr, w1 and w2 full, alpha 1e10", "SimpleTuner full_matrix", "wan", each(WAN, kohya, lokr, form="full", **LARGE)),
    Form(
        "LoKr, full, alpha infinite (fp16)",
        "ai-toolkit lokr_full_rank",
        "wan",
        each(WAN, NATIVE, lokr, torch.float16, form="full", alpha=torch.tensor(float("inf"), dtype=torch.float16)),
    ),
    Form(
        "LoKr, w2 of two matrices, native names",
        "ai-toolkit",
        "wan",
        each(WAN, NATIVE, lokr, torch.float16, form="w2", alpha=torch.tensor(1.0, dtype=torch.float16)),
    ),
    Form(
        "LoKr, w2 of two matrices, kohya names", "musubi-tuner, LyCORIS", "wan", each(WAN, kohya, lokr, form="w2", alpha=torch.tensor(1.0))
    ),
    Form("LoKr, both of two matrices", "LyCORIS decompose_both", "wan", each(WAN, kohya, lokr, form="both", alpha=torch.tensor(3.0))),
    Form("LoKr, w1 of two matrices", "LyCORIS", "wan", each(WAN, kohya, lokr, form="w1", alpha=torch.tensor(3.0))),
    Form("LoKr, lycoris_ and diffusers names", "SimpleTuner", "wan", simpletuner_lokr),
    Form(
        "LoKr on CogVideoX, lycoris_",
        "SimpleTuner",
        "cogvideox",
        each(COGVIDEOX, lambda one: f"lycoris_{flat(cogvideox_name(one))}", lokr, form="w2", alpha=torch.tensor(1.0)),
    ),
    Form(
        "LoKr on fused qkv, kohya names",
        "musubi-tuner",
        "hunyuan",
        each(HUNYUAN, lambda one: kohya(renamed(one, OFFICIAL)), lokr, form="w2", alpha=torch.tensor(1.0)),
    ),
    Form("LoKr on q, k, v apart", "SimpleTuner", "hunyuan", lokr_on_parts),
    Form(
        "LoKr of peft, full, alpha over r",
        "peft LoKrConfig",
        "wan",
        peft_folder("LOKR", lambda *args: lokr(*args, form="full", scale=48 / 32, factor=4), r=32, alpha=48, decompose_factor=4),
    ),
    Form(
        "LoKr of peft, w2 of two matrices",
        "peft LoKrConfig",
        "wan",
        peft_folder("LOKR", lambda *args: lokr(*args, form="w2", scale=3 / RANK, factor=4), r=RANK, alpha=3, decompose_factor=4),
    ),
    Form("LoHa, kohya names", "LyCORIS, musubi-tuner, OneTrainer", "wan", each(WAN, kohya, loha, alpha=2.0)),
    Form("LoHa, native names, no alpha", "converters", "wan", each(WAN, NATIVE, loha)),
    Form("LoHa of peft", "peft LoHaConfig", "wan", peft_folder("LOHA", lambda *args: loha(*args, scale=6 / 4), r=4, alpha=6)),
    Form("OFT with constraint", "kohya sd-scripts", "wan", each(WAN, kohya, oft, constraint=0.01)),
    Form("Diag-OFT", "LyCORIS", "wan", each(WAN, kohya, oft, constraint=0.0)),
    Form("Diag-OFT with rescale", "LyCORIS rescaled", "wan", each(WAN, kohya, oft, constraint=0.0, rescaled=True)),
    Form(
        "OFT on inputs",
        "peft OFTConfig",
        "wan",
        peft_folder("OFT", oft_on_inputs, r=0, oft_block_size=8, use_cayley_neumann=True, num_cayley_neumann_terms=5),
    ),
    Form(
        "OFT on inputs, exact rotations",
        "peft OFTConfig",
        "wan",
        peft_folder("OFT", lambda *args: oft_on_inputs(*args, num_terms=None), r=0, oft_block_size=8, use_cayley_neumann=False),
    ),
    Form("OFT on inputs, scaled", "OneTrainer OFT 2", "wan", each(WAN, NATIVE, oft_on_inputs, is_scaled=True)),
    Form("BOFT", "LyCORIS", "wan", each(WAN, kohya, boft)),
    Form("GLoRA", "LyCORIS", "wan", each(WAN, kohya, glora)),
    Form("IA3 on outputs", "LyCORIS", "wan", each(WAN, kohya, ia3)),
    Form("IA3 on inputs", "LyCORIS train_on_input", "wan", each(WAN, kohya, ia3, on_input=True)),
    Form("IA3 of peft", "peft IA3Config", "wan", peft_folder("IA3", peft_ia3, feedforward_modules=["blocks.2.ffn.net.2"])),
    Form("whole differences, diff and diff_b, kohya names", "LyCORIS full", "wan", each(WAN, kohya, whole)),
    Form("whole differences, diff and diff_b, native names", "ai-toolkit, KJNodes full", "wan", each(WAN, NATIVE, whole)),
)
