"""scripts.launch called, and words that a shell would rather change."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
BASE = ["--", "scripts.pretrain", "--preset", "t5-pegasus-base", "--data", "gs://b/my docs/*.jsonl"]
RUN = [*BASE, "--folder", "gs://b/run"]
AWKWARD = [
    "a b",
    "it's",
    '"q"',
    "$HOME $(id) ${x} `id` $$",
    "%n %%",
    "\\n\\",
    "*",
    "#",
    "文",
    "END_OF_SCRIPT",
    "",
    "{x}",
]


def launch(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.launch", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def made(*arguments: str) -> str:
    at = arguments.index("--")
    dry = ["--dry-run"] * (arguments[0] == "tpu")
    done = launch(*arguments[:at], *dry, *arguments[at:])
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(sys.executable, "python")


def looped(program: str, *more: str) -> list[str]:
    """What the loop is called with."""
    return ["keep_running", "--", program, "pretrain", "--data", *AWKWARD, "--folder", "gs://b/r", *more]
