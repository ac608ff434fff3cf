"""Useful tokens per second of the training step: packed rows beside the same pairs padded, one pair a row.

    python -m benchmarks.packing --data news.jsonl.gz [--preset tiny] [--repeats 5]

Padded: every source to max_source (384) and every target to max_target (128), as T5-PEGASUS trained. The two take turns
over the same documents, with about the same number of positions a step; medians and ratios are printed.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packing import SOURCE, TARGET, decode_rows, encode_row
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.t5.mt5 import PRESETS, with_vocabulary
from pegasus_zh.t5.program import t5_program
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.optimizer import OptimizerConfig
from training.step import compile_step


@dataclass(frozen=True, kw_only=True)
class Config:
    data: tuple[str, ...]
    preset: str = "tiny"
    positions: int = 8192
    """Of a step, about."""
    repeats: int = 7


def main() -> None:
    from pegasus_zh.text.documents import read_documents

    config = tyro.cli(Config)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = PegasusTokenizer(train_pegasus_vocabulary(read_documents(config.data), 4000))
        prepared = prepare(ExamplesConfig(), PrepareConfig(data=config.data), tokenizer, Path(folder) / "set")
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
    model = with_vocabulary(PRESETS[config.preset], tokenizer.vocab_size)

    def make(batch):
        shape = (batch["source"].shape[1], batch["target"].shape[1])
        program = t5_program(model, shape, OptimizerConfig(warmup=1), steps=1000)
        state = jax.jit(program.init)()
        batch = {k: jax.numpy.asarray(v)[None] for k, v in batch.items()}
        tokens = sum(int(np.count_nonzero(batch[f"{side}_segments"])) for side in ("source", "target"))
        positions = batch["source"].size + batch["target"].size
        step = compile_step(program.step, state, batch)

        def run() -> float:
            nonlocal state
            start = time.perf_counter()
            state, sums = step(state, batch)
            float(sums["loss"][0])
            return tokens / (time.perf_counter() - start)

        return run, 1 - tokens / positions, batch["source"].shape[1:]

    sides = {"packed": make(packed), "padded": make(padded)}
    speeds = {name: [] for name in sides}
    for repeat in range(config.repeats + 1):
        for name, (run, _, _) in sides.items():
            speed = run()
            if repeat:
                speeds[name].append(speed)
    for name, (_, padding, shape) in sides.items():
        print(f"{name}: {statistics.median(speeds[name]):,.0f} useful tokens/s, {padding:.1%} padding, sources {shape}")
    ratios = [a / b for a, b in zip(speeds["packed"], speeds["padded"], strict=True)]
    print(f"packed / padded: median {statistics.median(ratios):.2f} of {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
