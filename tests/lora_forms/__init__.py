"""The forms in which programs write LoRA files, each with what it does by the definition of its method."""

from . import beside, decomposed, kinds, mixtures, odd, other_trainers, published, strengths, wan_trainers
from .sheet import Form, Sheet

__all__ = ["FORMS", "Form", "Sheet"]

FORMS: dict[str, Form] = {
    form.name: form
    for module in (wan_trainers, other_trainers, strengths, decomposed, kinds, beside, mixtures, published, odd)
    for form in module.FORMS
}  # fmt: skip
