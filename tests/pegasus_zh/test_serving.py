"""StableHLO: a greedy decoder in a dozen lines, in a process without this project, writes what ours does."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from pegasus_zh.decoding import Marks, Search, write
from pegasus_zh.errors import DataError
from pegasus_zh.load import Loaded
from pegasus_zh.serving import write_serving
from pegasus_zh.tokenizers import PegasusTokenizer
from pegasus_zh.vocabulary import SPECIALS
from tests.pegasus_zh.random_model import TINY, random_model

CONFIG = replace(TINY, vocabulary=112, gelu="erf", scaled_output=True, cross_bias=True)
# As docs/export.md shows it.
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax import export
from safetensors.numpy import load_file

folder, source = sys.argv[1], np.array(json.loads(sys.argv[2]), np.int32)
about, weights = json.load(open(f"{folder}/serving.json")), load_file(f"{folder}/weights.safetensors")
encoder, step = (export.deserialize(open(f"{folder}/{name}.stablehlo", "rb").read()).call for name in ("encoder", "decode_step"))

length = 12
memory = jax.jit(encoder)(weights, source)
shapes = ([{"b": len(source), "p": length}.get(n, n) for n in about[name]] for name in ("keys", "values"))
keys, values = (jnp.zeros(shape, about["dtype"]) for shape in shapes)
token, written = np.full(len(source), about["start"], np.int32), []
for t in range(length):
    logits, keys, values = jax.jit(step)(weights, memory, keys, values, token, np.int32(t))
    token = np.asarray(logits.at[:, about["pad"]].set(-1e9).argmax(-1), np.int32)
    written.append(token.tolist())
print(json.dumps(written))
"""


def test_a_greedy_decoder_without_this_project(tmp_path):
    model = jax.device_get(random_model(CONFIG, seed=2))
    tokenizer = PegasusTokenizer(SPECIALS)
    out = tmp_path / "served"
    write_serving(out, Loaded(model, CONFIG, tokenizer, "a test"))
    source = np.random.default_rng(0).integers(1, 106, (3, 17), dtype=np.int32)
    source[1, 9:] = 0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out), json.dumps(source.tolist())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    marks = Marks(start=tokenizer.start_id, end=-1)
    expected, _ = write(model, source, np.zeros(3, np.uint32), config=CONFIG, search=Search(), marks=marks, length=12)
    np.testing.assert_array_equal(np.array(json.loads(done.stdout)).T, expected)
    with pytest.raises(DataError, match="served: exists already"):
        write_serving(out, Loaded(model, CONFIG, tokenizer, "a test"))
