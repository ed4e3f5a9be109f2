"""The forms of an English verb that prompts use: plays, playing, is playing."""

from __future__ import annotations

import re

_VOWELS = "aeiou"
_DROPS_E = re.compile(r"(?:^|[^aeiou])[aeiouy][^aeiouwxy]$|[cvgzu]$|[^aeioulr]l$|[rln]s$|[aeiou]{2}s$")
"""Roots of participles that lost an e: mak-, danc-, juggl-, clos-."""
_KEEPS_FORM = re.compile(r"(?:en|er|on|it|op|ish|ng|ow)$")
"""Those among them that did not: open-, enter-, visit-, sing-."""
_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|o)$")


def verb_forms(phrase: str) -> tuple[str, ...]:
    """The phrase, and it with its first word as other forms of the same verb where that ends in -s or -ing.

    Only regular verbs are known; where the stem can be read in two ways, the likelier one is taken.
    """
    first, _, rest = phrase.partition(" ")
    if re.fullmatch(r"[a-z]{2,}ing", first):
        stem = _stem_of_participle(first[:-3])
    elif re.fullmatch(r"[a-z]{3,}s", first) and not first.endswith("ss"):
        stem = _stem_of_third_person(first)
    else:
        return (phrase,)
    forms = dict.fromkeys([first, third_person(stem), participle(stem)])
    return tuple(f"{form} {rest}".strip() for form in forms)


def third_person(stem: str) -> str:
    """play -> plays, carry -> carries, catch -> catches"""
    if stem.endswith("y") and stem[-2:-1] not in _VOWELS:
        return stem[:-1] + "ies"
    return stem + ("es" if _SIBILANT.search(stem) else "s")


def participle(stem: str) -> str:
    """play -> playing, dance -> dancing, run -> running, tie -> tying"""
    if stem.endswith("ie"):
        return stem[:-2] + "ying"
    if stem.endswith("e") and stem[-2:] not in {"ee", "oe", "ye"}:
        return stem[:-1] + "ing"
    if _is_short_syllable(stem):
        return stem + stem[-1] + "ing"
    return stem + "ing"


def _is_short_syllable(stem: str) -> bool:
    """One syllable that ends in consonant, vowel, consonant: run, swim, hop."""
    return bool(re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", stem)) and len(stem) > 2


def _stem_of_participle(root: str) -> str:
    """play(ing) -> play, danc(ing) -> dance, runn(ing) -> run"""
    if len(root) > 2 and root[-1] == root[-2] and root[-1] not in "slzfe":
        return root[:-1]
    if _DROPS_E.search(root) and not _KEEPS_FORM.search(root):
        return root + "e"
    return root


def _stem_of_third_person(word: str) -> str:
    """plays -> play, carries -> carry, catches -> catch, dances -> dance"""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if re.search(r"(?:ss|x|zz|ch|sh|o)es$", word):
        return word[:-2]
    return word[:-1]
