"""Ways in which files break: single bytes, whole stretches, lengths, numbers, words of a text, and the header of a safetensors."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random

ODD_BYTES = (0, 1, 0x0A, 0x22, 0x2C, 0x7F, 0x80, 0xFE, 0xFF)
ODD_WORDS = (
    "null", "[]", "{}", '""', "true", "-1", "0", "1e400", "NaN", "nan", "inf", "-Infinity", "9" * 40, '"\\u0000"', "[[[[[[", "1.5",
    '"x"', "2026-01-01", "\ufeff", "\x00", "é", "😀", ",", ";", "\t", "\r", '"', "'", "..", "/", "\\",
)  # fmt: skip
ODD_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:e-?\d+)?|\w+|[^\w\s]')
LONGEST_STRETCH = 4096

Mutation = Callable[[bytes, Random], bytes]


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_byte(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([random.choice(ODD_BYTES)]) + content[place + 1 :]


def set_number(content: bytes, random: Random) -> bytes:
    """A number of two, four or eight bytes, as lengths and counts in headers are."""
    form = random.choice("<>") + random.choice("HIQ")
    size = struct.calcsize(form)
    place = random.randrange(max(1, min(len(content), 512) - size)) if random.random() < 0.5 else random.randrange(len(content))
    return content[:place] + struct.pack(form, random.choice(ODD_NUMBERS) & (256**size - 1)) + content[place + size :]


def cut_end(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def cut_begin(content: bytes, random: Random) -> bytes:
    return content[random.randrange(len(content)) :]


def cut_stretch(content: bytes, random: Random) -> bytes:
    begin, length = _stretch(content, random)
    return content[:begin] + content[begin + length :]


def repeat_stretch(content: bytes, random: Random) -> bytes:
    begin, length = _stretch(content, random)
    return content[: begin + length] * (1 + (begin == 0)) + content[begin:]


def overwrite(content: bytes, random: Random) -> bytes:
    begin, length = _stretch(content, random)
    return content[:begin] + random.choice((random.randbytes(length), bytes(length), b"\xff" * length)) + content[begin + length :]


def insert(content: bytes, random: Random) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.randbytes(random.choice((1, 2, 16, 300))) + content[place:]


def extend(content: bytes, random: Random) -> bytes:
    length = random.choice((1, 8, 100, 5000))
    return content + random.choice((bytes(length), random.randbytes(length), content[:length], content))


def change_words(content: bytes, random: Random) -> bytes:
    """For text: some words, numbers or signs become others, go, or come twice."""
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(random.choice((1, 1, 2, 4))):
        found = list(TOKEN.finditer(text))
        if not found:
            break
        token = random.choice(found)
        new = random.choice((random.choice(ODD_WORDS), random.choice(ODD_WORDS), "", token[0] * 2, random.choice(found)[0]))
        text = text[: token.start()] + new + text[token.end() :]
    return text.encode("utf-8", "surrogateescape")


def change_lines(content: bytes, random: Random) -> bytes:
    """For text: other line ends or encodings, lines that go, are exchanged, or come twice."""
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    if lines:
        place, other = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(4):
            case 0:
                lines.pop(place)
            case 1:
                lines[place], lines[other] = lines[other], lines[place]
            case 2:
                lines.insert(place, lines[other])
            case _:
                lines.insert(place, "")
    text = random.choice(("\n", "\n", "\r\n", "\r")).join(lines)
    return text.encode(random.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace")


def change_header(content: bytes, random: Random) -> bytes:
    """For safetensors: the header's JSON or a JSON text in its metadata, the length before it being right again."""
    length = struct.unpack("<Q", content[:8])[0] if len(content) > 8 else 0
    try:
        header = json.loads(content[8 : 8 + length])
        metadata = header.get("__metadata__", {})
        if metadata and random.random() < 0.7:
            name = random.choice(sorted(metadata))
            metadata[name] = change_words(metadata[name].encode(), random).decode("utf-8", "replace")
            changed = json.dumps(header).encode()
        else:
            changed = change_words(content[8 : 8 + length], random)
    except (AttributeError, ValueError):
        return flip_bits(content, random)
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


BYTES: tuple[Mutation, ...] = (
    flip_bits, flip_bits, set_byte, set_number, cut_end, cut_begin, cut_stretch, repeat_stretch, overwrite, insert, extend,
)  # fmt: skip
TEXT: tuple[Mutation, ...] = (*BYTES, change_words, change_words, change_words, change_lines, change_lines)
SAFETENSORS: tuple[Mutation, ...] = (*BYTES, change_header, change_header, change_header)


def mutate(content: bytes, mutations: Sequence[Mutation], others: Sequence[bytes], random: Random) -> bytes:
    """One to three changes; now and then a file of another kind, or an empty one, under this kind's name."""
    if random.random() < 0.02:
        return random.choice((b"", *others))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if content:
            content = random.choice(mutations)(content, random)
    return content


def _stretch(content: bytes, random: Random) -> tuple[int, int]:
    begin = random.randrange(len(content))
    return begin, random.randrange(1, max(2, min(LONGEST_STRETCH, len(content) - begin)))
