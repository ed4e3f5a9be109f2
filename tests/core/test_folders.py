"""What lies in a folder beside the photos: texts of any spelling, other folders, what systems leave behind; named, or rightly ignored."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from media import SIZE, blocks, save

from dualreal_core.dataset import scan_identity
from dualreal_core.dataset.folder import list_folder
from dualreal_core.dataset.loading import Loader, folder_state
from dualreal_core.dataset.photos import PHOTO_SUFFIXES
from dualreal_core.errors import InputError


def photos(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        save(folder / name, blocks(80, 120, seed))


def captions(folder: Path, prompt: str | None = "for all") -> dict[str, str]:
    return {item.source.name: item.caption for item in scan_identity(folder, prompt, SIZE).items}


def notes(folder: Path, prompt: str | None = "for all") -> tuple[str, ...]:
    return scan_identity(folder, prompt, SIZE).report.notes


@pytest.mark.parametrize(
    ("photo", "text"),
    [
        ("dog.png", "dog.txt"),
        ("dog.png", "dog.TXT"),
        ("DOG.PNG", "dog.txt"),
        ("dog.png", "dog.png.txt"),
        ("dog.png", "dog.txt.txt"),
        ("dog.png", "dog.caption"),
        ("dog.png", "dog.png.Caption"),
        ("dog.png", "dog .txt"),
        (f"{unicodedata.normalize('NFC', 'Jürgen')}.png", f"{unicodedata.normalize('NFD', 'Jürgen')}.txt"),
        (f"{unicodedata.normalize('NFD', '犬が')}.png", f"{unicodedata.normalize('NFC', '犬が')}.txt"),
        ("my.dog.png", "my.dog.txt"),
    ],
)
def test_a_text_file_that_plainly_belongs_to_a_photo_is_its_caption(tmp_path, photo, text):
    photos(tmp_path, photo)
    (tmp_path / text).write_text("its own", encoding="utf-8")
    assert captions(tmp_path, None) == {photo: "its own"}
    assert notes(tmp_path, None) == ()


def test_each_photo_gets_its_own_of_several_texts(tmp_path):
    photos(tmp_path, "a.jpg", "a.png", "b.png", "B.jpg")
    for name, text in {"a.txt": "both", "a.png.txt": "the png", "b.txt": "lower", "b.caption": "kohya"}.items():
        (tmp_path / name).write_text(text)
    assert captions(tmp_path) == {"a.jpg": "both", "a.png": "the png", "B.jpg": "for all", "b.png": "lower"}
    assert "b.caption is not used: the caption of b.png is b.txt" in notes(tmp_path)


def test_text_files_that_belong_to_no_photo_are_named(tmp_path):
    photos(tmp_path, "photo.png", "other.png")
    for name in ("pohto.txt", "README.txt", "other.txt", ".hidden.txt", "._photo.txt"):
        (tmp_path / name).write_text("words")
    found = notes(tmp_path)
    assert "pohto.txt is the caption of no file: did you mean photo.txt, for photo.png?" in found
    assert "README.txt is the caption of no file here" in found
    assert not any("hidden" in note or "._" in note for note in found)
    (tmp_path / "more.txt").write_text("words")
    assert "README.txt, more.txt are the captions of no file here" in notes(tmp_path)


def test_captions_of_the_clips_in_one_folder_are_no_strays(tmp_path):
    photos(tmp_path, "a.png")
    (tmp_path / "walk.mp4").write_bytes(b"x")
    (tmp_path / "walk.txt").write_text("a man walks")
    assert notes(tmp_path) == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_and_line_ends_of_windows(tmp_path, encoding):
    photos(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes("a dog *\r\non grass – 犬\r\n".encode(encoding))
    assert captions(tmp_path, None) == {"a.png": "a dog * on grass – 犬"}


def test_captions_that_win_over_the_prompt_are_said(tmp_path):
    photos(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.txt").write_text("its own")
    assert "1 photo has a caption of its own, which is used instead of the prompt 'for all'" in notes(tmp_path)
    (tmp_path / "b.txt").write_text("its own too")
    assert "2 photos have captions of their own, which are used instead of the prompt 'for all'" in notes(tmp_path)
    (tmp_path / "c.txt").write_text("third")
    assert not any("instead of the prompt" in note for note in notes(tmp_path, None))


def test_what_systems_leave_behind_is_ignored_and_what_people_left_is_named(tmp_path):
    photos(tmp_path, "a.png")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "b.heic").write_bytes(b"x")
    (tmp_path / ".c.jpg.icloud").write_bytes(b"x")
    report = scan_identity(tmp_path, "x", SIZE).report
    assert report.notes == () and report.skipped.keys() == {"b.heic", ".c.jpg.icloud"}
    assert report.skipped[".c.jpg.icloud"] == "missing: it is still in iCloud; download it"


def test_folders_at_every_place_that_is_looked_into_are_named(tmp_path):
    photos(tmp_path, "a.png", "images/b.png", "images/10_dog/c.png", "more/d.png")
    report = scan_identity(tmp_path, "x", SIZE).report
    assert report.used == ("a.png", "images/b.png") and report.notes == ("not looked into: the folders images/10_dog, more",)


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_folders_that_link_to_themselves(tmp_path):
    folder = tmp_path / "set"
    photos(folder, "a.png")
    (folder / "images").symlink_to(folder)
    (folder / "again").symlink_to(folder)
    report = scan_identity(folder, "x", SIZE).report
    assert report.used == ("a.png",) and not report.skipped and report.notes == ("not looked into: the folder again",)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match=r"The identity folder .*circle.* (cannot be opened|does not exist).*; check the path"):
        scan_identity(tmp_path / "circle", "x", SIZE)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are text there")
def test_names_that_are_no_text(tmp_path):
    for seed, name in enumerate((b"\xff.png", b"\xfe.png", b"d\xe9j\xe0.png")):
        save(Path(os.fsdecode(bytes(tmp_path) + b"/" + name)), blocks(80, 120, seed))
    Path(os.fsdecode(bytes(tmp_path) + b"/d\xe9j\xe0.txt")).write_text("its own")
    Path(os.fsdecode(bytes(tmp_path) + b"/\xfd.png")).write_text("no picture")
    report = scan_identity(tmp_path, "x", SIZE).report
    assert set(report.used) == {"\\udcff.png", "\\udcfe.png", "d\\udce9j\\udce0.png"} and report.skipped.keys() == {"\\udcfd.png"}
    "\n".join(report.lines()).encode()
    with pytest.raises(InputError) as caught:
        scan_identity(tmp_path, None, SIZE)
    str(caught.value).encode()


@pytest.mark.parametrize("count", [1, 2])
def test_that_nothing_can_be_used_is_said_as_it_is_meant(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.png").write_text(f"not a picture {number}")
    said = "the only file cannot be used (0.png" if count == 1 else "none of the 2 files can be used (0.png"
    with pytest.raises(InputError) as caught:
        scan_identity(tmp_path, "x", SIZE)
    assert said in str(caught.value)


def test_reports_count_in_words_that_fit(tmp_path):
    photos(tmp_path, "a.png")
    assert scan_identity(tmp_path, "x", SIZE).report.lines()[0] == "identity: 1 of 1 file used as a photo, 1 training sample"
    photos(tmp_path, "a.png", "b.png")
    assert scan_identity(tmp_path, "x", SIZE).report.lines()[0] == "identity: 2 of 2 files used as photos, 2 training samples"


def loader(folder: Path, prompt: str = "", within: Path | None = None) -> Loader:
    return Loader(list_folder(folder, prompt, "identity", "image", PHOTO_SUFFIXES, "add photos", within), "photo")


def test_a_loader_takes_photos_in_order_and_names_what_is_broken(tmp_path):
    photos(tmp_path, "dog10.png", "dog2.png", "dog3.png", "dog4.png")
    (tmp_path / "dog1.png").write_text("no picture")
    (tmp_path / "dog2.txt").write_bytes("two\r\n".encode("utf-8-sig"))
    (tmp_path / "dog3.txt").write_bytes(b"\xe9")
    (tmp_path / "notes.pdf").write_text("x")
    reading = loader(tmp_path)
    loaded = {photo.name: photo for photo in reading.photos(0)}
    assert [*loaded] == ["dog2.png", "dog4.png", "dog10.png"]
    assert [photo.caption for photo in loaded.values()] == ["two", "", ""]
    assert all(photo.picture.shape == (80, 120, 3) and photo.mask.min() == 1 for photo in loaded.values())
    lines = reading.report("folder", "add photos")
    assert lines[0] == "3 of 6 files loaded as photos" and "without a caption: dog4.png, dog10.png" in lines
    for start in ("skipped notes.pdf: unsupported", "skipped dog1.png: unreadable", "skipped dog3.png: its caption cannot be read: "):
        assert any(line.startswith(start) for line in lines), lines
    with pytest.raises(InputError, match=r"empty: the only file cannot be used \(a\.png: .*\); add photos"):
        (tmp_path / "none").mkdir()
        (tmp_path / "none" / "a.png").write_text("x")
        nothing = loader(tmp_path / "none")
        list(nothing.photos(0))
        nothing.report("empty", "add photos")


def test_a_loader_scales_down_to_the_longest_side(tmp_path):
    photos(tmp_path, "a.png")
    reading = loader(tmp_path, "for all")
    (photo,) = reading.photos(60)
    assert photo.picture.shape == (40, 60, 3) and photo.mask.shape == (40, 60) and photo.caption == "for all"
    assert "a.png is 120x80 and is scaled to 60x40" in reading.report("folder", "add photos")


def test_a_list_does_not_lead_out_of_the_folder_that_a_loader_is_bound_to(tmp_path):
    photos(tmp_path, "secret.png", "input/set/a.png", "input/other/b.png")
    folder = tmp_path / "input" / "set"
    (folder / "videos.txt").write_text("../../secret.png\n../other/b.png\n")
    (folder / "prompts.txt").write_text("one\ntwo\n")
    reading = loader(folder, within=tmp_path / "input")
    assert {photo.caption for photo in reading.photos(0)} == {"", "two"}
    (reason,) = reading.listing.skipped.values()
    assert reason == "not allowed: videos.txt lists it, but it lies outside of input"


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for rights to make links")
def test_a_list_of_odd_files(tmp_path):
    photos(tmp_path, "a.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "videos.txt").write_text("a.png\ncircle.png\npipe.png\ngone.png\n")
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\n")
    reading = loader(tmp_path, within=tmp_path)
    assert [photo.caption for photo in reading.photos(0)] == ["one"]
    reasons = {"circle.png": "is a link that leads nowhere", "pipe.png": "is a pipe, not a file"}
    assert reading.skipped == {name: f"unreadable: it {reason}" for name, reason in reasons.items()}
    assert reading.listing.skipped == {"gone.png": "missing: videos.txt lists it, but there is no such file"}


def test_the_state_of_a_folder_changes_with_its_files(tmp_path):
    photos(tmp_path, "a.png", "images/b.png")
    states = [folder_state(tmp_path)]
    (tmp_path / "a.txt").write_text("a caption")
    states.append(folder_state(tmp_path))
    (tmp_path / "images" / "b.png").unlink()
    states.append(folder_state(tmp_path))
    (tmp_path / "a.txt").write_text("b caption")
    states.append(folder_state(tmp_path))
    assert len(set(states)) == 4 and folder_state(tmp_path) == states[-1]
