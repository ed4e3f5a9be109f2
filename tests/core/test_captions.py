"""The pair prompts.txt / videos.txt: which line belongs to which, with and without empty ones at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualreal_core.dataset.captions import read_captions
from dualreal_core.errors import InputError

TWO = "a.mp4\nb.mp4\n"


def listed(folder: Path, names: str, prompts: str) -> dict[str, str]:
    (folder / "videos.txt").write_text(names)
    (folder / "prompts.txt").write_text(prompts)
    return {path.name: caption for path, caption in read_captions(folder, "").listed.items()}


@pytest.mark.parametrize("prompts", ["one\n\n", "one\r\n\r\n", "one\n\n\n\n", "one\n "])
def test_a_last_caption_may_be_empty(tmp_path, prompts):
    assert listed(tmp_path, TWO, prompts) == {"a.mp4": "one", "b.mp4": ""}


@pytest.mark.parametrize("names", [TWO, TWO.strip(), f"{TWO}\n\n"])
@pytest.mark.parametrize("prompts", ["one\ntwo", "one\ntwo\n", "one\ntwo\n\n \n"])
def test_empty_lines_at_the_end_are_no_lines(tmp_path, names, prompts):
    assert listed(tmp_path, names, prompts) == {"a.mp4": "one", "b.mp4": "two"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "cp932", "latin-1"])
def test_other_encodings_are_refused(tmp_path, encoding):
    text = {"cp932": "犬", "latin-1": "grün"}.get(encoding, "a man is playing guitar")
    (tmp_path / "clip.txt").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"clip\.txt is not UTF-8 text; save it as UTF-8"):
        read_captions(tmp_path, None).of(tmp_path / "clip.mp4")


@pytest.mark.parametrize(("prompts", "count"), [("one\n", 1), ("", 0), ("one\ntwo\nthree\n\n", 3), ("one\ntwo\n\nfour", 4)])
def test_other_counts_are_named(tmp_path, prompts, count):
    with pytest.raises(InputError, match=rf"has {count} lines and videos\.txt has 2"):
        listed(tmp_path, TWO, prompts)
