"""Settings of peft with which a file does not say what it changes in a model as it was published."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import InputError

METHODS = frozenset(("LORA", "LOKR", "LOHA", "OFT", "BOFT", "IA3"))
"""Of peft's methods those whose definitions are here."""
REWRITES_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of ways to begin training that take a part of the model's weights away, into the matrices."""
OTHERWISE: Mapping[str, str] = {
    "alora_invocation_tokens": "acts on the tokens behind some words alone (aLoRA)",
    "use_qalora": "acts on groups of what a layer reads (QA-LoRA)",
    "layer_replication": "is of a model with blocks that were put in twice (layer_replication)",
    "use_bdlora": "has matrices of blocks (BD-LoRA)",
    "kasa_config": "changes the model's own weights too (KaSA)",
    "arrow_config": "chooses among several by the tokens (Arrow)",
}
"""Settings that are not to be there, and what they say of a file."""


def check_settings(file: str, config: Mapping[str, object]) -> None:
    """Raises InputError where peft's configuration gives a file another meaning than its matrices have alone."""
    method = config.get("peft_type")
    if isinstance(method, str) and method.rpartition(".")[2].upper() not in METHODS:
        raise InputError(f"{file} is of the method {method}, which is not known here: convert it to a LoRA by the program that made it.")
    begin = config.get("init_lora_weights")
    if isinstance(begin, str) and begin.lower().startswith(REWRITES_WEIGHTS):
        raise InputError(
            f"{file} was trained on weights that {begin} had changed before (init_lora_weights), so that it does not fit the model itself: "
            "have peft convert it (save_pretrained with path_initial_model_for_weight_conversion)."
        )
    said = next((said for name, said in OTHERWISE.items() if config.get(name)), None)
    if said is not None:
        raise InputError(f"{file} {said} by its configuration, which is not known here: use a plain LoRA.")
