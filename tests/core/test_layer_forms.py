"""Forms of updates beside the plain low-rank one: what each computes, in every dtype and batch, compiled, combined, and out of a file."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import TEXT_DIM, TinyBase, model_inputs, predict, tiny_pair
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.families.lora_names import NamedRows
from dualreal_core.method.adapter import LoRA
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.combine import combine
from dualreal_core.method.experts import expert_of, join_experts
from dualreal_core.method.from_lora import FormUpdate, one_sided_pair
from dualreal_core.method.layer_forms import (
    FORMS,
    ButterflyOutput,
    ChangedInput,
    Difference,
    FormAdapter,
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
)  # fmt: skip
from dualreal_core.method.layer_updates import layer_updates
from dualreal_core.method.pair import AdapterPair, with_gate
from dualreal_core.method.prompt_gate import MARGIN, PromptGate
from dualreal_core.method.side_norms import norms_by_block
from dualreal_core.storage import load_pair, save_pair
from dualreal_core.storage.format import read_header

WIDTH, HEIGHT = 16, 32


def noise(*shape: int, scale: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return scale * torch.randn(shape, generator=generator)


def low_rank(height: int = HEIGHT, width: int = WIDTH) -> LowRank:
    return LowRank(down=noise(3, width), up=noise(height, 3))


def every_form(height: int = HEIGHT, width: int = WIDTH, bias: torch.Tensor | None = None) -> list[LayerForm]:
    """One of each form for a layer; bias: of the layer."""
    bias = torch.zeros(height) if bias is None else bias
    gain, turn = noise(height), noise(height // 8, 8, 8)
    turned = TurnedOutput(turn=turn, shift=torch.zeros(height))
    turned.shift.data = -turned(bias, bias, None)
    butterfly = ButterflyOutput(stages=torch.eye(4) + noise(2, height // 4, 4, 4), scale=1 + gain, shift=torch.zeros(height))
    butterfly.shift.data = -butterfly(bias, bias, None)
    return [
        low_rank(height, width),
        Kronecker(left=noise(height // 8, width // 4), right_up=noise(8, 2), right_down=noise(2, 4)),
        Hadamard(up1=noise(height, 2), down1=noise(2, width), up2=noise(height, 3), down2=noise(3, width)),
        Difference(value=noise(height, width)),
        Offset(value=noise(height)),
        ScaledOutput(gain=gain, shift=-gain * bias, inner=FormSum.of([low_rank(height, width)])),
        ScaledInput(gain=noise(width), inner=FormSum.of([low_rank(height, width)])),
        turned,
        butterfly,
        TurnedInput(turn=noise(width // 8, 8, 8), gain=gain, shift=-gain * bias),
        TurnedInput(turn=noise(1, 8, 8), gain=torch.zeros(height), shift=torch.zeros(height)),
        ChangedInput(down=noise(2, width), up=noise(width, 2)),
    ]


NAMES = [f"{number} {form.name}" for number, form in enumerate(every_form())]


def test_every_form_is_tried():
    assert {form.name for form in every_form()} == set(FORMS)


@pytest.mark.parametrize("name", NAMES)
def test_a_form_computes_what_its_change_of_the_weight_is_worth(name):
    layer = nn.Linear(WIDTH, HEIGHT)
    form = every_form(bias=layer.bias.detach())[NAMES.index(name)]
    hidden = noise(2, 5, WIDTH, scale=1)
    merged = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter, change in ((merged.weight, form.delta(layer.weight)), (merged.bias, form.bias_delta(layer.bias))):
            if change is not None:
                parameter += change
        output = layer(hidden)
        torch.testing.assert_close(output + form(hidden, output, layer), merged(hidden), rtol=1e-5, atol=1e-5)
        square = form.squared_norm(layer.weight)
        changed = (merged.weight - layer.weight) if form.changes_weight else merged.bias - layer.bias
        assert square == pytest.approx(float(changed.square().sum()), rel=1e-3)
        assert (form.squared_norm(None) is None) == form.reads_weight


@pytest.mark.parametrize("name", NAMES)
def test_some_outputs_of_a_form_are_those_of_the_whole(name):
    layer, rows = nn.Linear(WIDTH, HEIGHT), slice(8, 24)
    form = every_form(bias=layer.bias.detach())[NAMES.index(name)]
    hidden = noise(2, 5, WIDTH, scale=1)
    with torch.no_grad():
        output = layer(hidden)
        if form.name == "butterfly_output":
            with pytest.raises(InputError, match="mixes outputs"):
                form.of_outputs(rows)
            return
        part = form.of_outputs(rows)(hidden, output[..., rows], lambda tokens: layer(tokens)[..., rows])
        torch.testing.assert_close(part, form(hidden, output, layer)[..., rows], rtol=1e-5, atol=1e-5)


def test_parts_act_on_their_rows_in_their_order():
    layer, hidden = nn.Linear(WIDTH, HEIGHT), noise(2, WIDTH, scale=1)
    whole, part = Difference(value=noise(HEIGHT, WIDTH)), Difference(value=noise(8, WIDTH))
    total = FormSum.of([whole, (part, ((20, 4), (0, 4)))])
    delta = whole.value.clone()
    delta[20:24] += part.value[:4]
    delta[:4] += part.value[4:]
    with torch.no_grad():
        torch.testing.assert_close(total.delta(layer.weight), delta)
        torch.testing.assert_close(total(hidden, layer(hidden), layer), hidden @ delta.T)
        again = FormSum.of_state(total.state_dict())
        torch.testing.assert_close(again.delta(layer.weight), delta)
        torch.testing.assert_close(total.of_outputs(slice(16, 32)).delta(layer.weight[16:]), delta[16:])


LAYERS = {"wan": "blocks.1.attn1.to_q", "cogvideox": "transformer_blocks.1.attn1.to_q"}


def pair_of(base: TinyBase, role: str = "identity", family: str = "wan") -> AdapterPair:
    """Every form on a layer of its own, one after the other."""
    block_list = LAYERS[family].partition(".")[0]
    names = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
    updates = []
    for number, form in enumerate(every_form(32, 32, None)):
        path = f"{block_list}.{number // len(names)}.{names[number % len(names)]}"
        bias = base.transformer.get_submodule(path).bias.detach()
        form = every_form(32, 32, bias)[number]
        updates.append(FormUpdate((NamedRows(path, 0, 32),), form, form.squared_norm(base.transformer.get_submodule(path).weight)))
    return one_sided_pair(base.transformer, role, updates).requires_grad_(False)


def merged_with(base: TinyBase, pair: AdapterPair, weight: float = 1.0) -> TinyBase:
    merged = copy.deepcopy(base)
    with torch.no_grad():
        for key, adapter in pair.sides["identity"].items():
            block, _, layer = key.partition("-")
            linear = merged.transformer.blocks[int(block)].get_submodule(layer.replace("/", "."))
            if isinstance(adapter, LoRA):
                linear.weight += weight * adapter.up.weight @ adapter.down.weight
                continue
            changes = adapter.total.delta(linear.weight), adapter.total.bias_delta(linear.bias)
            for parameter, change in zip((linear.weight, linear.bias), changes, strict=True):
                if change is not None:
                    parameter += weight * change
    return merged


@pytest.fixture(scope="module")
def base() -> TinyBase:
    return TinyBase("wan", 4)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_all_forms_in_a_model_act_as_merged_at_any_weight(base, weight):
    pair = pair_of(base)
    with torch.no_grad(), Attachment(base.transformer, pair, FixedBlend(weight, 0.0)):
        ours = base.predict(*model_inputs())
    with torch.no_grad():
        expected = merged_with(base, pair, weight).predict(*model_inputs())
        plain = base.predict(*model_inputs())
    assert (expected - plain).abs().max() > 0.01
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_at_weight_0_and_once_detached_nothing_is_left(base):
    pair = pair_of(base)
    plain = predict(base)
    with torch.no_grad(), Attachment(base.transformer, pair, FixedBlend(0.0, 1.0)):
        torch.testing.assert_close(base.predict(*model_inputs()), plain, rtol=0, atol=0)
    assert torch.equal(predict(base), plain)


def test_a_prompt_that_does_not_name_them_changes_no_bit(base, tmp_path):
    pair, gate = pair_of(base), PromptGate(TEXT_DIM)
    assert torch.equal(predict(base, with_gate(pair, gate)), predict(base, pair))
    nn.init.constant_(gate.named.bias, -2 * MARGIN)
    assert torch.equal(predict(base, with_gate(pair, gate)), predict(base))
    save_pair(tmp_path / "pair.safetensors", with_gate(pair, gate))
    assert read_header(tmp_path / "pair.safetensors")["format_version"] == 8
    assert torch.equal(predict(base, load_pair(tmp_path / "pair.safetensors")[0]), predict(base))


def test_beside_a_plain_lora_of_the_other_side(base):
    """Both sides read what the layer itself has made."""
    update = FormUpdate((NamedRows("blocks.1.attn1.to_q", 0, 32),), low_rank(32, 32))
    identity, motion = pair_of(base), one_sided_pair(base.transformer, "motion", [update])
    both = combine(identity, motion)
    merged = merged_with(base, identity)
    with torch.no_grad():
        adapter = motion.sides["motion"]["1-attn1/to_q"]
        merged.transformer.blocks[1].attn1.to_q.weight += adapter.up.weight @ adapter.down.weight
    torch.testing.assert_close(predict(base, both.requires_grad_(False)), predict(merged), rtol=1e-4, atol=1e-4)


def test_rows_of_weight_0_stay_as_they_are(base):
    pair = pair_of(base)
    given = model_inputs()
    with torch.no_grad(), Attachment(base.transformer, pair) as attachment:
        rows = base.predict(*given).shape[0]
        attachment.row_strengths = [float(row == 0) for row in range(rows)]
        some = base.predict(*given)
        attachment.row_strengths = None
        every = base.predict(*given)
    plain = predict(base)
    torch.testing.assert_close(some[0], every[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some[1:], plain[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["no_grad", pytest.param("autograd", marks=pytest.mark.thorough)])
def test_in_compiled_code_as_one_graph(way):
    plain = TinyBase("wan", 1)
    path = "blocks.0.attn1.to_q"
    forms = every_form(32, 32, plain.transformer.get_submodule(path).bias.detach())
    pair = one_sided_pair(plain.transformer, "identity", [FormUpdate((NamedRows(path, 0, 32),), form) for form in forms])
    expected, compiled = predict(plain, pair.requires_grad_(False)), copy.deepcopy(plain)
    compiled.transformer.compile(backend="eager", fullgraph=True)
    with torch.set_grad_enabled(way == "autograd"), Attachment(compiled.transformer, pair):
        torch.testing.assert_close(compiled.predict(*model_inputs()).detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_lower_precision(base, dtype):
    pair = pair_of(base)
    adapter = pair.sides["identity"]["1-attn1/to_k"]
    assert isinstance(adapter, FormAdapter)
    for key, one in pair.sides["identity"].items():
        layer, hidden = nn.Linear(32, 32), noise(2, 5, 32, scale=1)
        base_layer, own = copy.deepcopy(layer).to(dtype), copy.deepcopy(one).to(dtype)
        if not isinstance(one, FormAdapter):
            continue
        output = base_layer(hidden.to(dtype))
        made = own.add_update(output, hidden.to(dtype), torch.ones(1), output, base_layer)
        exact = one.add_update(layer(hidden), hidden, torch.ones(1), layer(hidden), layer)
        assert made.dtype == dtype
        assert (made.float() - exact).norm() < 0.03 * exact.norm(), key


def test_a_packed_sample_has_weights_of_its_own_for_each_token():
    layer, hidden = nn.Linear(WIDTH, HEIGHT), noise(6, WIDTH, scale=1)
    adapter = FormAdapter(FormSum.of([low_rank()]))
    weights = torch.tensor([1.0, 1, 0, 0, 0.5, 1])
    output = layer(hidden)
    made = adapter.add_update(output, hidden, weights, output, layer)
    torch.testing.assert_close(made, output + weights[:, None] * (hidden @ low_rank().delta(None).T), rtol=1e-5, atol=1e-5)


def test_a_file_keeps_them_and_older_versions_are_told(base, tmp_path):
    pair, path = pair_of(base), tmp_path / "pair.safetensors"
    save_pair(path, pair, {"source": "lokr.safetensors"})
    loaded, _ = load_pair(path)
    assert read_header(path)["format_version"] == 7
    assert loaded.state_dict().keys() == pair.state_dict().keys()
    assert torch.equal(predict(base, loaded), predict(base, pair))
    assert norms_by_block(loaded, "identity") == norms_by_block(pair, "identity")
    assert all(norms_by_block(pair, "identity")[:3])
    plain = one_sided_pair(base.transformer, "motion", [FormUpdate((NamedRows("blocks.1.attn1.to_q", 0, 32),), low_rank(32, 32))])
    save_pair(path, plain)
    assert read_header(path)["format_version"] == 5


@pytest.mark.parametrize("damage", ["form", "strength"])
def test_a_damaged_file_of_them_is_refused(base, tmp_path, damage):
    path = tmp_path / "pair.safetensors"
    save_pair(path, pair_of(base))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if damage == "form":
        tensors = {name.replace("kronecker", "kronos"): tensor for name, tensor in tensors.items()}
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("to_k.strength")}
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match="does not hold what its header says"):
        load_pair(path)


def test_another_scale_and_two_experts(base):
    """Strengths that are folded in when pairs are joined."""
    identity, trained = pair_of(base), tiny_pair(base, kind="lora")
    both = combine(trained, copy.deepcopy(pair_of(base, "motion")))
    assert both.config.scale == trained.config.scale
    with torch.no_grad(), Attachment(base.transformer, both, FixedBlend(0.0, both.config.scale / 2)):
        ours = base.predict(*model_inputs())
    torch.testing.assert_close(ours, predict(base, identity), rtol=1e-4, atol=1e-4)
    joined = join_experts(identity, identity)
    for expert in (0, 1):
        torch.testing.assert_close(predict(base, expert_of(joined, expert)), predict(base, identity), rtol=1e-5, atol=1e-5)


def test_those_that_do_not_depend_on_the_model_can_be_written_as_lora_files(base):
    target = (NamedRows("blocks.1.attn1.to_q", 0, 32),)
    kronecker, offset, low = Kronecker(left=noise(4, 8), right=noise(8, 4)), Offset(value=noise(32)), low_rank(32, 32)

    def parts(*forms: LayerForm) -> dict[str, torch.Tensor]:
        pair = one_sided_pair(base.transformer, "identity", [FormUpdate(target, form) for form in forms])
        return layer_updates(pair, {"identity": [0.5] * pair.config.num_groups})[1, "attn1.to_q"]

    torch.testing.assert_close(parts(kronecker, low), {"diff": 0.5 * (kronecker.delta(None) + low.delta(None))})
    written = parts(low, offset)
    torch.testing.assert_close(written["up"] @ written["down"], 0.5 * low.delta(None))
    torch.testing.assert_close(written["diff_b"], 0.5 * offset.value)
    with pytest.raises(InputError, match="depends on the model's own weights"):
        parts(ScaledInput(gain=noise(32)))
