"""Every training is planned by its own command's flags, for a TPU slice that is not here: one small shape each."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.mt5 import MT5Config
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from tests.pegasus_zh.t5.random_model import random_model
from tests.retrieval.small_model import write_model
from tests.rope.encoder.random_encoder import ROFORMER

ROOT = Path(__file__).parents[2]
CHARACTERS = [chr(0x4E00 + n) for n in range(38)]
SHAPE = MT5Config(vocabulary=144, width=32, feed_forward=64, heads=4, head_size=8, layers=2)
TEXTS = [CHARACTERS[n] + "".join(CHARACTERS[n : n + 9]) for n in range(32)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small mT5, a small encoder, pairs and texts."""
    folder = tmp_path_factory.mktemp("plan")
    write_folder(folder / "mt5", jax.device_get(random_model(SHAPE)), SHAPE, PegasusTokenizer([*SPECIALS, *CHARACTERS]))
    write_model(folder / "encoder", ROFORMER)
    (folder / "pairs.tsv").write_text("".join(f"{text[:3]}\t{text}\n" for text in TEXTS), "utf-8")
    (folder / "labelled.tsv").write_text("".join(f"{text[:3]}\t{text}\t1\n" for text in TEXTS), "utf-8")
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    return folder


def planned(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "scripts.plan", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("pretrain", "--preset tiny --dtype bfloat16 --batch-size 16 --accumulate 2 --mesh.fsdp 2"),
        ("finetune", "--model mt5 --data pairs.tsv --folder none --max-source 16 --max-target 8 --mesh.data 4"),
        ("pretrain_encoder", "--preset tiny --batch-size 16 --mesh.tensor 2"),
        ("simcse", "--model encoder --data texts.txt --loss simcse --batch-size 8 --accumulate 2 --max-length 16"),
        ("match_anonymised", "--model encoder --data labelled.tsv --batch-size 16 --accumulate 2 --max-length 16"),
        ("wgan_images", "--critic gp --network fc --loop.batch-size 16"),
    ],
)
def test_a_command_is_planned_by_its_flags(folder, command, flags):
    done = planned(folder, command, "--topology", "v5e:2x2", *flags.split())
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    print(f"\n{last}")
    name, where, *_, memory, step, bound, _, estimated, _ = last.strip("| ").split(" | ")
    assert name in (command, "tiny") and where == "v5e:2x2" and "GiB a chip" in done.stdout
    assert float(memory) < 15.75 and min(float(step), float(estimated)) > (0 if bound == "-" else float(bound))
    assert not (folder / "none").exists()


def test_two_slices_are_planned_and_what_crosses_between_them(folder):
    flags = "--critic gp --network fc --loop.batch-size 16 --topology v5e:2x2 --slices 2".split()
    done = planned(folder, "wgan_images", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\nbetween slices each chip sends " in done.stdout and "| between slices " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("| wgan_images | 2 x v5e:2x2 | 2 x 4 x 1 x 1 | 2 |")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--topology v5e:2x2 --dtype bfloat16 --batch-size 16384", "error: does not fit: "),
        ("--topology v9x:2x2", "error: no TPU topology 'v9x:2x2'"),
        ("--topology v5e:2x2 --mesh.tensor 4", "error: impossible mesh (1, 1, 4): heads = 2 is not a multiple"),
    ],
)
def test_what_cannot_be_is_one_line(folder, flags, said):
    done = planned(folder, "pretrain", "--preset", "tiny", *flags.split())
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in done.stderr and "lockfile" not in done.stderr


def test_a_search_is_shown_and_kept(folder):
    flags = "--critic gp --network fc --topology v5e:2x2 --search --rows 4 --minutes 10".split()
    first, again = (planned(folder, "wgan_images", *flags) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr[-2000:]
    rows = [line for line in first.stdout.splitlines() if line.startswith("| wgan_images | v5e:2x2 |")]
    print("", *rows, sep="\n")
    assert rows and "0 left for want of time" in first.stdout and again.stdout == first.stdout
    assert len([*(folder / "runs" / "plans" / "search").glob("*.json")]) == 6  # meshes of four chips
