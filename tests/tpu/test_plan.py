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
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("pretrain", "--preset tiny --dtype bfloat16 --batch-size 16 --accumulate 2 --mesh.fsdp 2"),
        ("finetune", "--model mt5 --data pairs.tsv --folder none --max-source 16 --max-target 8 --mesh.data 4"),
        ("pretrain_encoder", "--preset tiny --batch-size 16 --mesh.tensor 2"),
        ("simcse", "--model encoder --data texts.txt --loss simcse --batch-size 8 --accumulate 2 --max-length 16"),
        ("wgan_images", "--critic gp --network fc --loop.batch-size 16"),
    ],
)
def test_a_command_is_planned_by_its_flags(folder, command, flags):
    program = [sys.executable, "-m", "scripts.plan", command, "--topology", "v5e:2x2", *flags.split()]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    print(f"\n{last}")
    name, where, *_, memory, step, bound, _ = last.strip("| ").split(" | ")
    assert name in (command, "tiny") and where == "v5e:2x2" and "GiB a chip" in done.stdout
    assert float(memory) < 15.75 and float(step) > (0 if bound == "-" else float(bound))
    assert not (folder / "none").exists()
