"""One training step (forward, backward, AdamW; float32) beside transformers' torch MT5:
same shapes, weights' sizes, batch.

    python -m benchmarks.training_step [--preset t5-pegasus-small] [--rows 8] [--source 384] [--target 128]
                                       [--dropout 0.1]

Needs the `parity` extra (`make bench` sets it up). The two take turns; medians and the ratio of each pair are printed.
"""

import statistics
import time
from dataclasses import dataclass, replace

import jax
import numpy as np
import torch
import tyro
from transformers import MT5Config as TorchConfig
from transformers import MT5ForConditionalGeneration

from pegasus_zh.t5.mt5 import PRESETS, parameters
from pegasus_zh.t5.program import t5_program
from training.optimizer import OptimizerConfig
from training.step import compile_step


@dataclass(frozen=True, kw_only=True)
class Config:
    preset: str = "t5-pegasus-small"
    rows: int = 8
    source: int = 384
    target: int = 128
    dropout: float = 0.1
    repeats: int = 7


def batch_of(config: Config, vocabulary: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ids = lambda length: rng.integers(106, vocabulary, (config.rows, length), dtype=np.int32)  # noqa: E731
    ones = lambda length: np.ones((config.rows, length), np.int32)  # noqa: E731
    target = ids(config.target)
    shifted = np.concatenate([np.full((config.rows, 1), 101, np.int32), target[:, :-1]], 1)
    return {
        "source": ids(config.source),
        "source_segments": ones(config.source),
        "target": target,
        "target_inputs": shifted,
        "target_segments": ones(config.target),
    }


def ours(config: Config):
    model = replace(PRESETS[config.preset], dropout=config.dropout)
    optimizer = OptimizerConfig(warmup=1, clip=0)
    program = t5_program(model, (config.source, config.target), optimizer, steps=1000)
    state = jax.jit(program.init)()
    batch = {k: jax.numpy.asarray(v)[None] for k, v in batch_of(config, model.vocabulary).items()}
    step = compile_step(program.step, state, batch)

    def run() -> float:
        nonlocal state
        state, sums = step(state, batch)
        return float(sums["loss"][0] / sums["loss"][1])

    return run


def theirs(config: Config):
    c = PRESETS[config.preset]
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(
        TorchConfig(
            vocab_size=c.vocabulary,
            d_model=c.width,
            d_kv=c.head_size,
            d_ff=c.feed_forward,
            num_layers=c.layers,
            num_decoder_layers=c.layers,
            num_heads=c.heads,
            dropout_rate=config.dropout,
            decoder_start_token_id=101,
            use_cache=False,
            tie_word_embeddings=False,
        )
    ).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, eps=1e-6, fused=True)
    batch = batch_of(config, c.vocabulary)
    inputs = {
        "input_ids": torch.from_numpy(batch["source"]).long(),
        "attention_mask": torch.from_numpy(batch["source_segments"]).long(),
        "decoder_input_ids": torch.from_numpy(batch["target_inputs"]).long(),
        "labels": torch.from_numpy(batch["target"]).long(),
    }

    def run() -> float:
        out = model(**inputs)
        out.loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return out.loss.item()

    return run


def main() -> None:
    config = tyro.cli(Config)
    print(f"{config.preset}: {parameters(PRESETS[config.preset]) / 1e6:.1f}M parameters, {config}")
    runs = {"ours": ours(config), "torch": theirs(config)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(config.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        print(f"{name:>6}: {statistics.median(seconds):.3f} s a step (min {min(seconds):.3f}, max {max(seconds):.3f})")
    ratios = [b / a for a, b in zip(times["ours"], times["torch"], strict=True)]
    print(
        "steps per second, ours / torch: "
        f"median {statistics.median(ratios):.2f} of {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
