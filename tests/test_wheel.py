"""What an installed wheel holds, and its command pegasus-zh, away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import pegasus_zh
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from tests.test_docs_python import snippets, told

ROOT = Path(__file__).parents[1]
ROOMS = ["training", "rope", "gan", "retrieval", "pegasus_zh"]
COMMANDS = sorted(file.stem for file in (ROOT / "scripts").glob("[!_]*.py"))


def call(*command: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=250, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Made of a copy: a build leaves folders behind, which the next one takes files from."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leave, dirs_exist_ok=True)
    done = call(
        sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", out, source
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The command, in an environment of its own that has this one's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    assert call(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    packages = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    Path(packages, "libraries.pth").write_text(sysconfig.get_path("purelib"))
    done = call(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin" / "pegasus-zh"


def test_a_wheel_holds_the_packages_and_their_data(wheel):
    about = f"pegasus_zh-{pegasus_zh.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{about}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {*ROOMS, about}
    modules = {str(file.relative_to(ROOT)) for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    commands = {f"pegasus_zh/commands/{name}.py" for name in [*COMMANDS, "__init__", "__main__"]}
    assert {name for name in names if name.endswith(".py")} == modules | commands
    corpus = {str(file.relative_to(ROOT)) for file in (ROOT / "pegasus_zh" / "corpus").glob("*.jsonl")}
    critics = {f"gan/benchmark/{file.name}" for file in (ROOT / "gan" / "benchmark").iterdir()}
    page = {f"retrieval/search/page/page.{kind}" for kind in ("html", "css", "js")}
    typed = {*(f"{room}/py.typed" for room in ROOMS), "retrieval/pairs/templates.json"}
    assert corpus and corpus | critics | page | typed | {f"{about}/licenses/LICENSE"} <= names
    assert "pegasus-zh = pegasus_zh.commands.__main__:main" in entry_points


def test_the_version_is_that_of_the_project(installed, tmp_path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert pegasus_zh.__version__ == version and not hasattr(pegasus_zh, "version")
    said = call(installed.with_name("python"), "-c", "import pegasus_zh; print(pegasus_zh.__version__)", cwd=tmp_path)
    assert said.stdout == f"{version}\n", said.stderr


def test_the_command_lists_the_commands_and_is_named_by_their_usage(installed, tmp_path):
    none, unknown, listed = (call(installed, *name, cwd=tmp_path) for name in ([], ["nothing"], ["--help"]))
    assert (none.returncode, unknown.returncode, listed.returncode) == (1, 1, 0)
    assert none.stderr == "\nerror: no NAME given\n" and unknown.stderr == "\nerror: no command 'nothing'\n"
    assert none.stdout == unknown.stdout == listed.stdout
    assert listed.stdout.startswith("usage: pegasus-zh NAME [flags]\n")
    assert re.findall(r"^  (\w+)  +\S.*[^: ]$", listed.stdout, re.M) == COMMANDS
    help = call(installed, "pretrain", "--help", cwd=tmp_path)
    assert help.returncode == 0 and help.stdout.startswith("usage: pegasus-zh pretrain [-h]")


def test_the_checkout_calls_the_same_commands():
    listed = call(sys.executable, "-m", "scripts", "--help", cwd=ROOT)
    assert listed.returncode == 0 and listed.stdout.startswith("usage: python -m scripts.NAME [flags]\n")
    module, package = (
        call(sys.executable, "-m", *name, "--help", cwd=ROOT) for name in (["scripts.export"], ["scripts", "export"])
    )
    assert module.returncode == 0 and module.stdout == package.stdout
    assert module.stdout.startswith("usage: python -m scripts.export [-h]")


@pytest.mark.slow
def test_the_snippets_of_the_documentation_run(installed, tmp_path):
    (tmp_path / "page.py").write_text(snippets(), "utf-8")
    where = "import gan, pegasus_zh, retrieval, rope; print(*(x.__file__ for x in (gan, pegasus_zh, retrieval, rope)))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = installed.with_name("python")
    found = call(python, "-c", where, cwd=tmp_path, env=environment).stdout.split()
    assert len(found) == 4 and all(Path(file).is_relative_to(installed.parents[1]) for file in found)
    done = call(python, "page.py", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-len(told()) :] == told()


def test_worker_processes_find_the_installed_command(installed, tmp_path):
    corpus = ROOT / "pegasus_zh" / "corpus" / "heldout.jsonl"
    PegasusTokenizer(train_pegasus_vocabulary(read_documents([str(corpus)]), 1000)).save(tmp_path / "tokenizer")
    line = "prepare --tokenizer tokenizer --folder set --workers 2 --shard-megabytes 0.01 --data"
    done = call(installed, *line.split(), corpus, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "set").glob("shard-*.json"))) > 2
