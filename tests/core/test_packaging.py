"""What an installation brings: nothing new to ComfyUI, all that the command line needs by an extra, and an archive of what users need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import imports

from dualreal_core import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, REGISTRY_ENTRY = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
IN_COMFYUI = {"torch", "numpy", "transformers", "safetensors", "pillow", "tqdm", "filelock"}
"""Of what the extras install: what the requirements.txt of ComfyUI 0.33.0 has."""
COMFYUI_ALONE = {"aiohttp", "av", "comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "node_helpers"}
IMPORTED_AS = {"pillow": "PIL", "imageio-ffmpeg": "imageio_ffmpeg"}

WHOLE = ("nodes/", "dualreal_core/", "web/", "locales/", "workflows/", "subgraphs/")
"""Folders that the archive has with every file."""
ALLOWED = [
    r"__init__\.py|LICENSE|README(\.ja)?\.md|CHANGELOG\.md|CITATION\.cff|pyproject\.toml|requirements\.txt",
    r"nodes/\w+\.py",
    r"dualreal_core/([a-z_]+/)*\w+\.py",
    r"dualreal_core/toyworld/weights/(codec|transformer)\.safetensors",
    r"dualreal_core/gating/generic_prompts\.txt",
    r"web/docs/\w+(/ja)?\.md",
    r"web/js/([a-z_]+/)?\w+\.(js|json|css)",
    r"locales/(en|ja)/\w+\.json",
    r"workflows/\w+\.(json|jpg)",
    r"workflows/api/(\w+\.json|batch\.py)",
    r"subgraphs/[\w ]+\.json",
    r"docs/[\w.-]+\.md",
]
MOST_BYTES = 15_000_000


def distributions(extra: str) -> set[str]:
    """Names that an extra installs, with those of the extras it includes."""
    found = set()
    for requirement in EXTRAS[extra]:
        included = re.fullmatch(r"dualreal\[([a-z,]+)\]", requirement)
        if included:
            found |= set().union(*(distributions(name) for name in included[1].split(",")))
        else:
            found.add(re.match(r"[\w-]+", requirement)[0])
    return found


def import_name(distribution: str) -> str:
    return IMPORTED_AS.get(distribution, distribution)


def run_without(packages: set[str], program: str) -> subprocess.CompletedProcess:
    """A program in a Python where these packages cannot be imported."""
    missing = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(packages))
    return subprocess.run([sys.executable, "-c", f"import sys\n{missing}{program}"], cwd=ROOT, capture_output=True, text=True)


def archive() -> set[str]:
    """What `comfy node pack` puts into its archive: tracked files that no pattern of .comfyignore takes out."""

    def listed(*arguments: str) -> set[str]:
        return set(subprocess.check_output(["git", "ls-files", *arguments], cwd=ROOT, text=True).splitlines())

    if not (ROOT / ".git").exists():
        pytest.skip("NOT RUN: this is no git checkout, and only tracked files are published")
    return listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")


def test_nothing_is_installed_into_comfyui():
    assert PROJECT["dependencies"] == [], "registry tools install these into a user's ComfyUI"
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.strip() and not line.startswith("#")], "ComfyUI-Manager installs these"


def test_nodes_need_only_what_comfyui_has():
    tops = {target for path in (ROOT / "nodes").glob("*.py") for target in imports(path)}
    core = {".".join(target) for target in tops if target[0] == "dualreal_core"}
    others = {target[0] for target in tops} - {"dualreal_core", "nodes"} - COMFYUI_ALONE - sys.stdlib_module_names
    assert others <= {import_name(name) for name in IN_COMFYUI}
    missing = {import_name(name) for extra in EXTRAS for name in distributions(extra) - IN_COMFYUI}
    assert {"diffusers", "peft", "imageio_ffmpeg", "matplotlib"} <= missing
    done = run_without(missing, "from importlib import import_module\n" + "\n".join(f"import_module({name!r})" for name in sorted(core)))
    assert len(core) > 10 and done.returncode == 0, done.stderr


def test_extras_have_all_that_the_core_imports():
    imported = {target[0] for path in (ROOT / "dualreal_core").rglob("*.py") for target in imports(path)}
    provided = {import_name(name) for extra in ("standalone", "plots", "optimizers", "evaluate") for name in distributions(extra)}
    assert imported - {"dualreal_core", "tomllib"} - sys.stdlib_module_names <= provided


def test_extras_include_each_other():
    for extra in ("plots", "optimizers", "evaluate", "test", "dev"):
        assert distributions("standalone") < distributions(extra)
    assert distributions("plots") < distributions("test") < distributions("dev")
    assert {"torch", "diffusers", "peft", "safetensors", "pillow", "imageio-ffmpeg"} <= distributions("standalone")


@pytest.mark.parametrize("package", ["torch", "diffusers", "tqdm"])
def test_the_command_without_its_packages_says_what_to_install(package: str, tmp_path: Path):
    done = run_without({package}, f"from dualreal_core.cli import main\nsys.exit(main(['demo', '--out', {str(tmp_path / 'demo')!r}]))")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'dualreal: {package} is not installed; run: pip install "dualreal[standalone]"\n'


def test_registry_entry():
    assert PROJECT["version"] == __version__
    assert REGISTRY_ENTRY["DisplayName"] and REGISTRY_ENTRY["requires-comfyui"].startswith(">=")
    assert "web" not in REGISTRY_ENTRY, "a web folder named there is served under the project's name, where the page does not look for help"
    assert "Operating System :: OS Independent" in PROJECT["classifiers"]


def test_addresses_are_all_the_owners_or_all_still_open():
    repository, icon = PROJECT["urls"]["Repository"], REGISTRY_ENTRY["Icon"]
    assert icon.endswith("/docs/icon.svg") and (ROOT / "docs" / "icon.svg").exists()
    is_open = ["OWNER" in repository, "OWNER" in icon, not REGISTRY_ENTRY["PublisherId"]]
    assert len(set(is_open)) == 1, "the repository's address, the icon's address and the PublisherId belong together"


def test_icon_has_the_size_that_the_registry_takes():
    header = (ROOT / "docs" / "icon.svg").read_text(encoding="utf-8").partition(">")[0]
    assert [int(size) for size in re.findall(r'(?:width|height)="(\d+)"', header)] == [400, 400]


def test_archive_has_nothing_unexpected():
    unexpected = [path for path in sorted(archive()) if not any(re.fullmatch(pattern, path) for pattern in ALLOWED)]
    assert not unexpected, "name them in .comfyignore, or here in ALLOWED if users need them"
    assert sum((ROOT / path).stat().st_size for path in archive() if (ROOT / path).exists()) < MOST_BYTES


def test_archive_has_all_that_users_need():
    published = archive()
    tracked = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())
    assert {path for path in tracked if path.startswith(WHOLE)} <= published
    assert {"__init__.py", "LICENSE", "README.md", "README.ja.md", "pyproject.toml", "requirements.txt", "docs/comfyui.md"} <= published
    for folder in WHOLE:
        assert any(path.startswith(folder) for path in published), folder
    weights = "dualreal_core/toyworld/weights"
    assert {f"{weights}/codec.safetensors", f"{weights}/transformer.safetensors", "dualreal_core/gating/generic_prompts.txt"} <= published


def test_published_code_neither_executes_text_nor_starts_pip():
    for path in (ROOT / path for path in archive() if path.endswith(".py")):
        text = path.read_text(encoding="utf-8")
        called = {node.func.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not called & {"exec", "eval"}, path
