"""Useful tokens per second of the training step: packed rows beside the same pairs padded, one pair a row.

    python -m benchmarks.packing --data news.jsonl.gz [--preset tiny] [--repeats 5]

Padded: every source to max_source (384) and every target to max_target (128), as T5-PEGASUS trained; of the same
documents, with about the same number of positions a step. benchmarks/harness.py says how it is timed.
"""

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, measure
from benchmarks.side import Run
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packing import SOURCE, TARGET, decode_rows, encode_row
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.t5.mt5 import PRESETS, with_vocabulary
from pegasus_zh.t5.program import t5_program
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.flags import FLAT
from training.optimizer import OptimizerConfig
from training.step import compile_step

Rows = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Config:
    data: tuple[str, ...]
    preset: str = "tiny"
    positions: int = 8192
    """Of a step, about."""
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, repeats=7))


def rows(config: Config) -> tuple[Rows, Rows, int]:
    """The packed, the padded ones, and the size of the vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = PegasusTokenizer(train_pegasus_vocabulary(read_documents(config.data), 4000))
        prepared = prepare(
            ExamplesConfig(), PrepareConfig(data=config.data, eval_fraction=0), tokenizer, Path(folder) / "set"
        )
        manifest = prepared.manifest
        packed = prepared.train.batch(range(max(1, config.positions // sum(manifest.row.values()))))
    pairs = [
        (row["source"][row["source_segments"] == n], row["target"][row["target_segments"] == n])
        for row in ({k: v[i] for k, v in packed.items()} for i in range(len(packed["source"])))
        for n in range(1, row["source_segments"].max() + 1)
    ]
    alone = max(1, config.positions // (384 + 128))
    records = [encode_row([pair], manifest.dtype) for pair in pairs[:alone]]
    padded = decode_rows(records, manifest.dtype, {SOURCE: 384, TARGET: 128}, tokenizer.pad_id, tokenizer.start_id)
    return packed, padded, tokenizer.vocab_size


def step_of(preset: str, vocabulary: int, rows: Rows) -> Run:
    shape = (rows["source"].shape[1], rows["target"].shape[1])
    program = t5_program(with_vocabulary(PRESETS[preset], vocabulary), shape, OptimizerConfig(warmup=1), steps=1000)
    state = jax.jit(program.init)()
    batch = {k: jax.numpy.asarray(v)[None] for k, v in rows.items()}
    step = compile_step(program.step, state, batch)

    def run() -> float:
        nonlocal state
        state, sums = step(state, batch)
        return float(sums["loss"][0])

    return run


def main() -> None:
    config = tyro.cli(Config)
    packed, padded, vocabulary = rows(config)
    found = {}
    for kind, batch in {"packed": packed, "padded": padded}.items():
        lengths = [batch[side].shape[1] for side in ("source", "target")]
        tokens = sum(int(np.count_nonzero(batch[f"{side}_segments"])) for side in ("source", "target"))
        padding = 1 - tokens / len(batch["source"]) / sum(lengths)
        found[f"{kind}: {lengths[0]} + {lengths[1]}, {padding:.1%} padding"] = batch, tokens
    measure(
        f"training step, {config.preset}, useful tokens",
        {name: partial(step_of, config.preset, vocabulary, batch) for name, (batch, _) in found.items()},
        config.clock,
        work={name: tokens for name, (_, tokens) in found.items()},
        unit="token",
    )


if __name__ == "__main__":
    main()
