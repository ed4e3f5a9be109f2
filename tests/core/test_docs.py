"""What the pages say exists: links and their anchors, commands with their options, settings, nodes; and the README stays short."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from test_pack_files import labels, schemas

from dualreal_core.commands import COMMANDS
from dualreal_core.commands.arguments.shared_options import add_base_options
from dualreal_core.method.pair import PER_SIDE, PairConfig
from dualreal_core.training.recipes import NOT_SET, OWN_FIELDS, PAPER, read_recipe
from dualreal_core.training.settings import TrainSettings

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ja.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_README_LINES = 170
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_readme = pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = "") -> list[str]:
    return [text for kind, text in FENCE.findall(read(page)) if kind == language]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"(?:\]\(|src=\")([^)\"\s]+)", FENCE.sub("", read(page)))
    for link in (link for link in links if not link.startswith("http")):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(page: Path) -> list[list[str]]:
    """Calls of `dualreal` in a page's blocks, without comments and without parts that stand for something."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines if line.startswith("dualreal ")]
    return [[word for word in call[1:] if not word.startswith("[")] for call in calls]


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(exit_on_error=False)
    parsers = whole.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(parsers.add_parser(name, exit_on_error=False))
    return whole


@each_page
def test_commands_have_these_options(page: Path):
    for call in commands(page):
        parser().parse_args(call)


def test_settings_files_are_read(tmp_path: Path):
    for number, text in enumerate(blocks(ROOT / "docs" / "cli.md", "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text, encoding="utf-8")
        read_recipe(file, PAPER)


def test_every_setting_is_listed():
    listed = dict(re.findall(r"^\| `\[(\w+)\]` \| (.+) \|$", read(ROOT / "docs" / "cli.md"), re.MULTILINE))
    pair = {item.name for item in fields(PairConfig)} - set(NOT_SET) | {*PER_SIDE, *OWN_FIELDS}
    assert set(re.findall(r"`(\w+)`", listed["train"])) == {item.name for item in fields(TrainSettings)}
    assert set(re.findall(r"`(\w+)`", listed["pair"])) == pair


@each_readme
def test_readme_is_short(page: Path):
    assert len(read(page).splitlines()) <= MOST_README_LINES


def test_both_languages_say_the_same():
    """As far as can be counted: headings, rows of tables, pictures, links and commands."""
    english, japanese = map(read, READMES)
    for pattern in (r"^#+ ", r"^\|", r"^- ", r"^\d\. ", r"!\[.*?\]\((.+?)\)", r'src="(.+?)"'):
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, japanese)]
        assert found[0] == found[1], pattern
    assert commands(READMES[0]) == commands(READMES[1])
    numbers = [sorted(re.findall(r"\d*\.\d\d", text)) for text in (english, japanese)]
    assert numbers[0] == numbers[1]


@each_readme
def test_every_node_is_named(page: Path):
    """English display names in one, Japanese ones in the other."""
    shown = schemas() if page.name == "README.md" else labels()
    missing = [entry["display_name"] for entry in shown.values() if entry["display_name"] not in read(page)]
    assert len(shown) >= 17 and not missing


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "docs/comfyui.md", "docs/comfyui.ja.md"])
def test_tables_of_models_are_what_the_tests_try(name):
    script = runpy.run_path(str(ROOT / "scripts" / "make_model_tables.py"))
    assert set(script["TABLES"]) >= {name}
    assert script["page"](name) == read(ROOT / name), "run python scripts/make_model_tables.py"


def test_models_that_other_samplers_are_made_for_are_not_said_to_be_of_ksampler():
    script = runpy.run_path(str(ROOT / "scripts" / "make_model_tables.py"))
    by_sampler = {shown: models for models, _, shown, _ in script["readme_table"]()}
    assert "Causal Wan" in by_sampler["SamplerCustom + Sampler AR Video"] and "Causal" not in by_sampler["KSampler"]
    (row,) = (row for row in script["guide_table"]() if row[0].startswith("Causal Wan"))
    assert row[-1] == "with SamplerCustom and Sampler AR Video"
    assert all(one.sampler in script["SAMPLED_WITH"] for one in script["VARIANTS"].values()), "a model has no row"


def test_the_templates_page_says_the_share_of_a_family_once():
    """And is as the script would print it."""
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \|([^|]*)\| (.+) \|$", read(ROOT / "docs" / "templates.md"), re.MULTILINE)
    outcomes = {name: said for name, family, _, said in rows if family != "Family"}
    printed = runpy.run_path(str(ROOT / "benchmarks" / "template_table.py"))["table"](outcomes)
    assert len(outcomes) >= 10 and printed in read(ROOT / "docs" / "templates.md")
    shares = [int(share) for share in re.findall(r"\| (\d+) % \|", printed)]
    assert f"A pair acts on {sum(shares)} % of the runs" in printed


def test_help_names_the_models_that_base_takes():
    """Those of the table of model folders."""
    parser = argparse.ArgumentParser()
    add_base_options(parser)
    said = " ".join(parser.format_help().split())
    assert all(name in said for name in ("CogVideoX", "Wan", "LTX-Video", "LTX-2", "HunyuanVideo", "HunyuanVideo 1.5"))
