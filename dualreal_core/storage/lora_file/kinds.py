"""The kinds of updates that files hold, each by the parts that it is told by, and how its weights become ours.

Definitions are those of the programs that write them: kohya's and LyCORIS's modules, and peft's tuners. Of an update that depends on the
layer's own weight that one is read, at the precision of float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...method.layer_forms import (
    ButterflyOutput,
    ChangedInput,
    Difference,
    FormSum,
    Hadamard,
    Kronecker,
    LayerForm,
    LowRank,
    Offset,
    ScaledInput,
    ScaledOutput,
    TurnedInput,
    TurnedOutput,
    khatri_rao,
)  # fmt: skip
from .here import USE_OTHER, BadLayer, Here, WrongSize, check_ranks, check_sizes, matrix
from .keys import VALUE
from .turns import cayley, of_skew_vectors

LARGEST_PRODUCT = 256
"""Ranks of a LoHa whose product is larger stay a product of two: the low-rank form would be as large as the layer."""
EPSILON = 1e-12


def forms_of(here: Here) -> tuple[list[LayerForm], list[str]]:
    """What a layer does, and the kinds that this is of.

    Raises:
        BadLayer: the layer is incomplete, of another size, or of no known kind.
    """
    try:
        return _forms_of(here)
    except (IndexError, RuntimeError) as error:  # torch's own, of tensors of other dimensions or sizes
        raise BadLayer(f"has tensors for {here.layer.name} that do not fit each other: use another copy") from error


def _forms_of(here: Here) -> tuple[list[LayerForm], list[str]]:
    here.left = {name: tensor for name, tensor in here.layer.parts.items() if name != "alpha"}
    main: list[LayerForm] = []
    kinds: list[str] = []
    for title, mark, build in KINDS:
        if any(name in here.left for name in mark):
            main += build(here)
            kinds.append(title)
    if "dora_scale" in here.left:
        main, kinds = [_dora(here, main)], [f"DoRA{'' if kind == 'LoRA' else f' of {kind}'}" for kind in kinds or ["LoRA"]]
    for title, mark, build in MORE:
        if any(name in here.left for name in mark):
            main += build(here)
            kinds.append(title)
    here.left.pop("reshape_weight", None)
    if here.left:
        raise BadLayer(f"holds {', '.join(sorted(here.left))} of {here.layer.name}, which belong to no kind of update that is known here")
    return main, list(dict.fromkeys(kinds))


def _lora(here: Here) -> list[LayerForm]:
    (mid,) = here.take("mid")
    down, up = here.need("down", "up")
    down, up = matrix(down, here), matrix(up, here)
    if mid is not None:
        down = torch.einsum("mn...,nj->mj...", mid, down).flatten(1)
    check_ranks(here, down.shape[0], up.shape[1])
    check_sizes(here, up.shape[0], down.shape[1])
    factor = here.scaling(down.shape[0])
    found: list[LayerForm] = [LowRank(down=down, up=up if factor == 1 else up * factor)]
    (bias,) = here.take("up_bias")
    return [*found, Offset(value=bias.flatten() * factor)] if bias is not None and bool(bias.any()) else found


def _factor(here: Here, whole: str, above: str, below: str, core: torch.Tensor | None) -> tuple[torch.Tensor, int | None]:
    """A matrix that may be a product, or one around a core, with the rank of that."""
    (matrix,) = here.take(whole)
    if matrix is not None:
        return matrix.flatten(1), None
    up, down = here.need(above, below)
    if core is not None:
        return torch.einsum("ij...,jr,ip->pr...", core, down, up).flatten(1), down.shape[0]
    check_ranks(here, up.shape[1], down.shape[0])
    return up @ down.flatten(1), down.shape[0]


def _lokr(here: Here) -> list[LayerForm]:
    (core, _) = here.take("lokr_t2", "lokr_t1")
    left, rank_left = _factor(here, "lokr_w1", "lokr_w1_a", "lokr_w1_b", None)
    right, rank_right = _factor(here, "lokr_w2", "lokr_w2_a", "lokr_w2_b", core)
    check_sizes(here, left.shape[0] * right.shape[0], left.shape[1] * right.shape[1])
    rank = rank_right or rank_left
    if rank is None and here.layer.alpha is None and here.strength.is_of_peft:  # peft scales whole factors too, LyCORIS does not
        rank = here.strength.configured_rank(here.layer)
    factor = here.scalar() if rank is None else here.scaling(rank)
    return [Kronecker(left=left * factor, right=right)]


def _loha(here: Here) -> list[LayerForm]:
    cores = here.take("hada_t1", "hada_t2")
    up1, down1, up2, down2 = here.need("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    factor = here.scaling(down1.shape[0])
    if cores[0] is not None and cores[1] is not None:
        both = [
            torch.einsum("ij...,jr,ip->pr...", core, down, up).flatten(1)
            for core, up, down in ((cores[0], up1, down1), (cores[1], up2, down2))
        ]
        check_sizes(here, *both[0].shape)
        return [Difference(value=both[0] * both[1] * factor)]
    check_ranks(here, up1.shape[1], down1.shape[0])
    check_ranks(here, up2.shape[1], down2.shape[0])
    down1, down2 = down1.flatten(1), down2.flatten(1)
    check_sizes(here, up1.shape[0], down1.shape[1])
    check_sizes(here, up2.shape[0], down2.shape[1])
    if down1.shape[0] * down2.shape[0] <= LARGEST_PRODUCT:
        down, up = khatri_rao(up1 * factor, down1, up2, down2)
        return [LowRank(down=down, up=up)]
    return [Hadamard(up1=up1 * factor, down1=down1, up2=up2, down2=down2)]


def _oft(here: Here) -> list[LayerForm]:
    """LyCORIS's and kohya's: the weight's outputs are turned, its bias is not; alpha bounds the turn, in units of the layer's height."""
    blocks, diagonal, rescale = here.take("oft_blocks", "oft_diag", "rescale")
    if blocks is not None:
        if blocks.ndim not in (3, 4):
            raise BadLayer(f"has oft_blocks of size {list(blocks.shape)} for {here.layer.name}: use another copy")
        height = blocks.shape[-3] * blocks.shape[-1]
        turn = cayley(blocks, (here.strength.alpha(here.layer) or 0.0) * height)
    else:
        height, size = diagonal.shape[0] * diagonal.shape[-1], diagonal.shape[-1]
        identity = torch.eye(size)
        # earlier LyCORIS kept the turn itself, and before that its distance from the identity
        turn = diagonal if float(diagonal.diagonal(dim1=-2, dim2=-1).mean()) > 0.5 else diagonal + identity
    if here.shape is not None and height != here.shape[0]:
        raise WrongSize(f"turns {height} outputs of {here.layer.name}, which has {here.shape[0]}: {USE_OTHER}")
    scale = torch.ones(height) if rescale is None else rescale.flatten()
    bias = here.own_bias(height)
    if turn.ndim == 4:
        form = ButterflyOutput(stages=turn, scale=scale, shift=torch.zeros(height))
        form.shift.data = -form(bias, bias, lambda hidden: hidden)
        return [form]
    turn = turn * scale.view(turn.shape[0], 1, -1) - torch.eye(turn.shape[-1])
    form = TurnedOutput(turn=turn, shift=torch.zeros(height))
    form.shift.data = -form(bias, bias, lambda hidden: hidden)
    return [form]


def _oft_of_peft(here: Here) -> list[LayerForm]:
    (vectors,) = here.need("oft_R")
    (is_scaled,) = here.take("scaled_oft")
    if vectors.ndim != 2:
        raise BadLayer(f"is an OFT of an old version of peft ({here.layer.name}), which is not known here: convert it by peft")
    turn = of_skew_vectors(vectors, here.strength.adapter_config, is_scaled is not None and bool(is_scaled.any()))
    width, height = turn.shape[0] * turn.shape[-1], 0
    if here.shape is not None:
        width, height = int(torch.Size(here.shape[1:]).numel()), here.shape[0]
    if (turn.shape[0] > 1 and turn.shape[0] * turn.shape[-1] != width) or width % turn.shape[-1]:
        raise WrongSize(
            f"turns {turn.shape[0] * turn.shape[-1]} inputs of {here.layer.name}, which has {width}: {USE_OTHER}"
        )
    zeros = torch.zeros(height)
    return [TurnedInput(turn=turn - torch.eye(turn.shape[-1]), gain=zeros, shift=zeros.clone())]


def _boft_of_peft(here: Here) -> list[LayerForm]:
    (blocks,) = here.need("boft_R")
    (scale,) = here.take("boft_s")
    if blocks.ndim != 4 or blocks.shape[0] != 1:
        raise BadLayer(f"is a BOFT of {len(blocks)} butterfly factors ({here.layer.name}), of which peft's with one alone are known here")
    turn = cayley(blocks[0] / -2)  # peft turns by the inverse, and takes half of the difference
    if here.shape is not None and turn.shape[0] * turn.shape[-1] != int(torch.Size(here.shape[1:]).numel()):
        raise WrongSize(f"turns {turn.shape[0] * turn.shape[-1]} inputs of {here.layer.name}: {USE_OTHER}")
    gain = scale.flatten() - 1 if scale is not None else torch.zeros(here.shape[0] if here.shape else 0)
    return [TurnedInput(turn=turn - torch.eye(turn.shape[-1]), gain=gain, shift=-gain * here.own_bias(len(gain)))]


def _glora(here: Here) -> list[LayerForm]:
    a1, a2, b1, b2 = (matrix(tensor, here) for tensor in here.need("a1", "a2", "b1", "b2"))
    if not b2.shape[0] == b1.shape[1] == a1.shape[1] == a2.shape[0]:  # LyCORIS had them the other way round
        a1, a2, b1, b2 = a2, a1, b2, b1
    check_ranks(here, b2.shape[0], b1.shape[1])
    check_sizes(here, b1.shape[0], b2.shape[1])
    factor = here.scaling(b2.shape[0])
    return [ChangedInput(down=a2, up=a1 * factor), LowRank(down=b2, up=b1 * factor)]


def _ia3_of_peft(here: Here) -> list[LayerForm]:
    """peft's: factors, of inputs (1, C), or of outputs (D, 1) with their bias."""
    (factors,) = here.need("ia3_l")
    if factors.ndim == 2 and factors.shape[0] == 1 and factors.shape[1] > 1:
        return [_scaled_input(here, factors.flatten() - 1)]
    gain = factors.flatten() - 1
    _check_height(here, gain)
    return [ScaledOutput(gain=gain, shift=torch.zeros(len(gain)))]


def _ia3(here: Here) -> list[LayerForm]:
    """LyCORIS's: what factors exceed 1 by, of the weight without its bias."""
    on_input, gain = here.need("on_input", "weight")
    gain = gain.flatten()
    if bool(on_input.any()):
        return [_scaled_input(here, gain)]
    _check_height(here, gain)
    return [ScaledOutput(gain=gain, shift=-gain * here.own_bias(len(gain)))]


def _scaled_input(here: Here, gain: torch.Tensor) -> ScaledInput:
    if here.shape is not None and len(gain) != int(torch.Size(here.shape[1:]).numel()):
        raise WrongSize(f"scales {len(gain)} inputs of {here.layer.name}: {USE_OTHER}")
    return ScaledInput(gain=gain)


def _check_height(here: Here, gain: torch.Tensor) -> None:
    if here.shape is not None and len(gain) != here.shape[0]:
        raise WrongSize(f"scales {len(gain)} outputs of {here.layer.name}, which has {here.shape[0]}: {USE_OTHER}")


def _dora(here: Here, inner: list[LayerForm]) -> LayerForm:
    """DoRA as peft and LyCORIS define it: magnitudes over the norms of the summed weight, by rows or by columns."""
    (magnitude,) = here.take("dora_scale")
    weight = here.own_weight("DoRA")
    total = FormSum.of(inner)
    delta = total.delta(weight)
    summed = weight if delta is None else weight + delta
    height, channels = summed.shape[0], here.shape[1] if here.shape is not None and len(here.shape) > 1 else summed.shape[1]
    is_columns = magnitude.ndim > 1 and magnitude.shape[0] == 1 and magnitude.shape[1] > 1
    values = magnitude.flatten()
    if len(values) != (channels if is_columns else height):
        raise WrongSize(f"has {len(values)} magnitudes for {here.layer.name}, which has {height} outputs: {USE_OTHER}")
    if is_columns:
        by_channel = summed.unflatten(1, (channels, -1))
        gain = values / by_channel.transpose(0, 1).flatten(1).norm(dim=1).clamp_min(EPSILON) - 1
        return ScaledInput(gain=gain.repeat_interleave(by_channel.shape[2]), inner=total)
    gain = values / summed.norm(dim=1).clamp_min(EPSILON) - 1
    return ScaledOutput(gain=gain, shift=-gain * here.own_bias(height), inner=total)


def _difference(here: Here) -> list[LayerForm]:
    value, norm = here.take("diff", "w_norm")
    return [Difference(value=_as_weight(here, one)) for one in (value, norm) if one is not None]


def _bias_difference(here: Here) -> list[LayerForm]:
    return [Offset(value=_as_bias(here, one)) for one in here.take("diff_b", "b_norm", "up_bias") if one is not None]


def _whole(here: Here) -> list[LayerForm]:
    """Weights as they are to be, instead of differences."""
    found: list[LayerForm] = []
    for value in here.take("set_weight", "weight", VALUE):
        if value is not None:
            value = _as_weight(here, value)
            found.append(Difference(value=value - here.own_weight("full weight").reshape(value.shape)))
    (bias,) = here.take("bias")
    if bias is not None:
        bias = _as_bias(here, bias)
        found.append(Offset(value=bias - here.own_bias(len(bias))))
    return found


def _as_weight(here: Here, value: torch.Tensor) -> torch.Tensor:
    """A value in the shape of the weight, convolutions flattened."""
    if here.shape is None:
        return value
    if value.numel() != torch.Size(here.shape).numel() or (value.ndim > 1 and value.shape[0] != here.shape[0]):
        raise WrongSize(f"changes {here.layer.name} by {list(value.shape)} numbers, but it has {list(here.shape)}: {USE_OTHER}")
    return value.reshape(here.shape).flatten(1) if len(here.shape) > 1 else value.flatten()


def _as_bias(here: Here, value: torch.Tensor) -> torch.Tensor:
    value = value.flatten()
    if here.shape is not None and len(value) != here.shape[0]:
        raise WrongSize(f"changes the bias of {here.layer.name} by {len(value)} numbers, but it has {here.shape[0]}: {USE_OTHER}")
    return value


Build = Callable[[Here], list[LayerForm]]
KINDS: tuple[tuple[str, tuple[str, ...], Build], ...] = (
    ("IA3", ("on_input",), _ia3),
    ("LoRA", ("down", "up", "mid"), _lora),
    ("LoKr", ("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"), _lokr),
    ("LoHa", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _loha),
    ("OFT", ("oft_blocks", "oft_diag"), _oft),
    ("OFT", ("oft_R",), _oft_of_peft),
    ("BOFT", ("boft_R",), _boft_of_peft),
    ("GLoRA", ("a1", "a2", "b1", "b2"), _glora),
    ("IA3", ("ia3_l",), _ia3_of_peft),
    ("full differences", ("diff", "w_norm"), _difference),
)
"""Title, the parts of which one tells the kind, and what reads it. DoRA goes around what comes of these."""
MORE: tuple[tuple[str, tuple[str, ...], Build], ...] = (
    ("biases", ("diff_b", "b_norm", "up_bias"), _bias_difference),
    ("full weights", ("set_weight", "weight", VALUE, "bias"), _whole),
)
UNKNOWN: dict[str, str] = {
    "vera_lambda": "VeRA", "pvera_lambda": "pVeRA", "fourierft_": "FourierFT", "waveft_": "WaveFT", "vblora_": "VB-LoRA", "hra_": "HRA",
    "lora_E": "AdaLoRA", "randlora_": "RandLora", "c3a_": "C3A", "miss_": "MiSS", "bone_": "Bone", "shira_": "SHiRA", "road_": "RoAd",
    "gralora_": "GraLoRA", "hira_": "HiRA", "delora_": "DeLoRA", "osf_": "OSF", "tinylora_": "TinyLoRA", "ln_tuning_": "LN tuning",
    "trainable_tokens_": "trainable tokens", "lora_embedding_": "LoRA of an embedding", "prompt_embeddings": "prompt tuning",
    "glora_": "GLoRA of peft", "psoft_": "PSOFT", "poly_": "Poly", "lily_": "Lily", "unilora_": "Uni-LoRA", "frod_": "FRoD",
}  # fmt: skip
"""Methods whose definitions are not here, by a part of their tensors' names."""
