"""StableHLO: a greedy decoder in a dozen lines, in a process without this project, writes what ours does."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.load import Loaded
from pegasus_zh.t5.stablehlo import write_serving
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from tests.pegasus_zh.t5.random_model import TINY, random_model
from training.files.errors import DataError

CONFIG = replace(TINY, vocabulary=112, layers=3, decoder_layers=2, gelu="erf", scaled_output=True, cross_bias=True)
PAGE = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
(PROGRAM,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "deserialize" in block]


def test_a_greedy_decoder_without_this_project(tmp_path):
    model = jax.device_get(random_model(CONFIG, seed=2))
    tokenizer = PegasusTokenizer(SPECIALS)
    out = tmp_path / "served"
    write_serving(out, Loaded(model, CONFIG, tokenizer, "a test"))
    source = np.random.default_rng(0).integers(1, 106, (3, 17), dtype=np.int32)
    source[1, 9:] = 0
    program, given = re.subn(r"(?m)^source = .*", f"source = np.array({source.tolist()}, np.int32)", PROGRAM)
    program, named = re.subn(r"(?m)^folder, length = .*", f"folder, length = {str(out)!r}, 12", program)
    assert given == named == 1
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program + "print(json.dumps(written))"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    marks = Marks(start=tokenizer.start_id, end=-1)
    expected, _ = write(
        model, source, np.zeros(3, np.uint32), decoder=MT5Decoder(CONFIG), search=Search(), marks=marks, length=12
    )
    *texts, written = done.stdout.splitlines()
    expected = np.asarray(expected)
    np.testing.assert_array_equal(np.array(json.loads(written)).T, expected)
    ended = [row[: row.index(tokenizer.eos_id)] if tokenizer.eos_id in row else row for row in expected.tolist()]
    assert texts == ["".join(SPECIALS[i] if i < 106 else "" for i in row) for row in ended]
    with pytest.raises(DataError, match="served: exists already"):
        write_serving(out, Loaded(model, CONFIG, tokenizer, "a test"))
