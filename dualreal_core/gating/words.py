"""Which words name a side: a trigger, what all captions of the clips share, or what the user gives."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from ..errors import InputError
from .generic_prompts import generic_prompts
from .inflections import verb_forms

NEARLY_ALL = 0.8
"""Share of the captions that hold what is taken for the motion's words."""
MOST_COMMON = 0.01
"""Share of generic prompts that may hold them, too."""
LONGEST = 12
"""Words; a longer sequence that captions share is a description, of which no prompt will repeat every word."""
_FIRST_WORDS = 5
"""Of a sequence, in which its subject is looked for."""
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’-][^\W{_CJK}]+)*|[^\w\s]")
_ARTICLES = frozenset({"a", "an", "the"})
_LINKS = frozenset(
    ("of", "in", "on", "at", "by", "with", "from", "to", "into", "onto", "over", "under", "through", "along", "across", "around", "behind",
     "before", "after", "near", "beside", "between", "and", "or", "but", "as", "is", "are", "was", "were", "be", "being", "been", "that",
     "which", "who", "while", "wearing")
)  # fmt: skip
"""Words that part a noun or a verb from what follows."""
_ANYBODY = ("a person", "the person", "person", "people", "a human", "a character", "somebody", "the subject", "a subject", "a figure")
"""Subjects of captions that name nobody."""
_NOUN_WORDS = 3
"""Words beside a trigger that are taken for what it is: a class with an article and an adjective."""


@dataclass(frozen=True)
class SideWords:
    """Attributes:
    names: word sequences of which each names the side, wherever a prompt holds it.
    placed: how prompts put it, each with one of the names in it: 'a figure *'.
    near: what comes near to it and does not name it: 'a figure'.
    """

    names: tuple[str, ...]
    placed: tuple[str, ...]
    near: tuple[str, ...] = ()

    def named_in(self, prompt: str) -> bool:
        """Whether a prompt holds one of the names, word by word; articles do not count."""
        words = _content(words_of(prompt))
        return any(_place(_content(words_of(name)), words) is not None for name in self.names)


def words_of(text: str) -> list[str]:
    """Words in lower case; signs, and the letters of scripts without spaces, stand alone."""
    return _WORD.findall(text.lower())


def split_words(given: str) -> tuple[str, ...]:
    """The alternatives of a text that separates them by commas."""
    return tuple(dict.fromkeys(" ".join(one.split()) for one in given.split(",") if words_of(one)))


def identity_words(given: str = "", trigger: str = "", captions: Iterable[str] = ()) -> SideWords:
    """The words of an identity: those that are given, else the trigger, beside which captions say what it is.

    Raises:
        InputError: there is neither.
    """
    alternatives = split_words(given) or (trigger.strip(),)
    if not words_of(alternatives[0]):
        raise InputError("Nothing says which words of a prompt name the identity: give its words, such as its trigger.")
    names, placed, near = [], [], []
    captions = list(dict.fromkeys(captions))
    known = {word for template in generic_prompts() for word in words_of(template.text)}
    for name in alternatives:
        own = words_of(name)
        noun = _noun_around(own, captions)
        if len(noun) == len(own):  # captions say no more: what is a word of other prompts, too, is a class, or the last word is
            own = [word for word in own if word not in known] or own[:-1]
        near.append(_agreeing([word for word in noun if word not in own]))
        placed += [" ".join(noun), name]
        names.append(name)
    words = SideWords(tuple(names), tuple(dict.fromkeys(placed)))
    return replace(words, near=tuple(one for one in dict.fromkeys(near) if _is_content(one) and not words.named_in(one)))


def motion_words(given: str = "", captions: Iterable[str] = ()) -> SideWords:
    """The words of a motion: those that are given, else the longest sequence of words that nearly all captions share.

    Raises:
        InputError: there are none that other prompts do not hold as well.
    """
    alternatives = split_words(given) or _shared(list(dict.fromkeys(captions)))
    names = tuple(dict.fromkeys(form for name in alternatives for form in verb_forms(name)))
    return SideWords(names, names)


def _shared(captions: Sequence[str]) -> tuple[str, ...]:
    said = "Give the words that name the motion, such as 'plays the violin'."
    if not captions:
        raise InputError(f"Nothing says which words of a prompt name the motion. {said}")
    spoken = [words_of(caption) for caption in captions]
    least = math.ceil(NEARLY_ALL * len(spoken))
    counts: dict[tuple[str, ...], int] = {}
    for words in spoken:
        most = LONGEST + 2 * _FIRST_WORDS  # with what is trimmed
        runs = [words[start:stop] for start in range(len(words)) for stop in range(start + 1, min(start + most, len(words)) + 1)]
        for sequence in {tuple(run) for run in runs if all(word[0].isalnum() for word in run)}:
            counts[sequence] = counts.get(sequence, 0) + 1
    generic = [_padded(words_of(template.text)) for template in generic_prompts()]
    nouns = {tuple(words_of(noun)) for noun in (*(template.subject for template in generic_prompts()), *_ANYBODY)}

    def is_motion(sequence: tuple[str, ...]) -> bool:
        held = sum(_padded(sequence) in prompt for prompt in generic)
        return len(sequence) <= LONGEST and _is_content(" ".join(sequence)) and held <= MOST_COMMON * len(generic)

    shared = {_trimmed(sequence, nouns) for sequence, count in counts.items() if count >= least}
    found = max((one for one in shared if is_motion(one)), key=lambda one: (len(one), one), default=None)
    if found is None:
        raise InputError(f"The captions of the clips share no words that other prompts do not hold, too. {said}")
    return (" ".join(found),)


def _trimmed(sequence: Sequence[str], nouns: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Without a common subject and words that link in front, and without such words behind."""
    kept = list(sequence)
    verb = next((place for place, word in enumerate(kept[:_FIRST_WORDS]) if word in {"is", "are"}), None)
    if verb is not None and verb + 1 < len(kept):
        kept = kept[verb + 1 :]
    for size in range(min(len(kept), _FIRST_WORDS), 0, -1):
        if tuple(kept[:size]) in nouns:
            kept = kept[size:]
            break
    while kept and kept[0] in _LINKS:
        kept.pop(0)
    while kept and kept[-1] in _LINKS | _ARTICLES:
        kept.pop()
    return tuple(kept)


def _noun_around(name: Sequence[str], captions: Sequence[str]) -> list[str]:
    """The name with the words beside it that say what it is, in nearly all captions: 'a figure *' of 'a figure * on sand'."""
    places = [(words, start) for words in map(words_of, captions) if (start := _place(name, words)) is not None]
    least = math.ceil(NEARLY_ALL * len(places))

    def shared(offset: int) -> str | None:
        """The word so many words from the name's first one that nearly all have there; None where that says nothing of a noun."""
        found = [words[start + offset] for words, start in places if 0 <= start + offset < len(words)]
        word = max(dict.fromkeys(found), key=found.count, default="")
        return word if word and found.count(word) >= least and _is_noun_word(word) else None

    before = list(takewhile(bool, map(shared, range(-1, -1 - _NOUN_WORDS, -1))))[::-1]
    after = list(takewhile(bool, map(shared, range(len(name), len(name) + _NOUN_WORDS))))
    if any(word not in _ARTICLES for word in before):  # 'dog *' is a noun already: 'runs' in 'dog * runs' is none
        after = []
    return [*before, *name, *after]


def _agreeing(noun: Sequence[str]) -> str:
    """A noun whose article suits the word that now comes next."""
    if len(noun) > 1 and noun[0] in {"a", "an"}:
        noun = ["an" if noun[1][0] in "aeiou" else "a", *noun[1:]]
    return " ".join(noun)


def _is_noun_word(word: str) -> bool:
    return word not in _LINKS and word[0].isalnum() and not word.endswith("ing")


def _is_content(phrase: str) -> bool:
    return any(word[0].isalnum() and word not in _ARTICLES | _LINKS for word in words_of(phrase))


def _content(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in _ARTICLES]


def _place(wanted: Sequence[str], words: Sequence[str]) -> int | None:
    """Where a sequence begins in another one; None where it does not occur, or is empty."""
    places = range(len(words) - len(wanted) + 1) if wanted else ()
    return next((start for start in places if list(words[start : start + len(wanted)]) == list(wanted)), None)


def _padded(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "
