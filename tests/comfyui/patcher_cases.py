"""What `patcher_checks` is asked, as data: each check by its name, with the cases that it is tried on."""

from __future__ import annotations

from itertools import product

ARCHITECTURES = ("wan", "cogvideox", "ltxv", "hunyuan")
PRECISIONS = ("fp32", "bf16")
KINDS = ("lora", "bottleneck")

CASES: dict[str, list[tuple[str, ...]]] = {
    "samples_exactly_as_the_base_where_the_pair_does_nothing": list(product(ARCHITECTURES, PRECISIONS, KINDS)),
    "trains_also_with_blocks_run_again": list(product(ARCHITECTURES, PRECISIONS)),
    "samples_then_trains_then_samples_on_one_model": [*product(("wan", "ltxv"), PRECISIONS), ("wan", "float8_e4m3fn")],
    "float8_weights_train_and_sample_nearly_as_full_ones": [("float8_e4m3fn",), ("cast to float8",)],
    "weights_made_for_a_call_are_not_kept": [(name, "cast to float8") for name in ARCHITECTURES],
    "weights_in_main_memory_sample_as_loaded_ones": [(form,) for form in PRECISIONS],
    "no_site_waits_for_the_device": [(kind,) for kind in KINDS],
    "compiled_code_has_the_pair_in_it": list(product(ARCHITECTURES, ("compiled", "applied"), ("whole", "blocks"))),
    "one_graph_holds_model_and_pair": list(product(ARCHITECTURES, KINDS)),
}
IN_DYNAMIC_VRAM = [name for name in CASES if "main_memory" not in name and "waits" not in name]
"""Those that the host's dynamic VRAM could fail."""
BRIEF = ("wan",)
"""Architectures where the checks themselves are tried, on the CPU."""


def title(name: str, case: tuple[str, ...]) -> str:
    """A check with its case, as the report calls it."""
    return f"{name}[{', '.join(case)}]"


def cases(is_dynamic: bool, is_brief: bool) -> list[tuple[str, tuple[str, ...]]]:
    """All checks that are run."""
    left_out = set(ARCHITECTURES) - set(BRIEF) if is_brief else set()
    names = IN_DYNAMIC_VRAM if is_dynamic else list(CASES)
    return [(name, case) for name in names for case in CASES[name] if not left_out & set(case)]
