"""One training step (forward, backward, AdamW) beside transformers' torch MT5: same shapes, weights' sizes, batch.

    python -m benchmarks.training_step [--preset t5-pegasus-small] [--rows 8] [--source 384] [--target 128]
                                       [--dropout 0.1] [--dtype bfloat16] [--torch sdpa eager]

Needs the `parity` extra (`make bench` sets it up). Parameters and AdamW are float32 in both; torch's has its fused
kernel, each attention a side, and of bfloat16 autocast. benchmarks/harness.py says how it is timed.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, measure
from benchmarks.side import Run
from pegasus_zh.t5.mt5 import PRESETS, MT5Config, flops_per_row, parameters
from pegasus_zh.t5.program import t5_program
from rope.layers.kernels import Implementation
from training.flags import FLAT
from training.optimizer import OptimizerConfig
from training.partition import Dtype
from training.step import Batch, TrainState, compile_step


@dataclass(frozen=True, kw_only=True)
class Config:
    preset: str = "t5-pegasus-small"
    vocabulary: int = 0
    """0: the preset's; 32128 makes t5-pegasus-base the size of T5 v1.1 base."""
    rows: int = 8
    source: int = 384
    target: int = 128
    dropout: float = 0.1
    dtype: Dtype = "float32"
    """Of the computation."""
    attention: tuple[Implementation, ...] = ("auto",)
    """Ours, each a side."""
    torch: tuple[Literal["sdpa", "eager"], ...] = ("sdpa", "eager")
    """Its attention."""
    compiled: bool = False
    """torch.compile."""
    steps: int = 1
    """Of a turn."""
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, repeats=7))

    @property
    def model(self) -> MT5Config:
        preset = PRESETS[self.preset]
        return replace(
            preset,
            vocabulary=self.vocabulary or preset.vocabulary,
            dropout=self.dropout,
            dtype=self.dtype,
        )

    @property
    def title(self) -> str:
        shape = f"{self.rows} rows of {self.source} + {self.target}"
        return f"{self.preset} ({parameters(self.model) / 1e6:.1f}M), {shape}, {self.dtype}, dropout {self.dropout}"


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


def compiled(config: Config, attention: Implementation) -> tuple[jax.stages.Compiled, TrainState, Batch]:
    """The step, and what it is called with."""
    model = replace(config.model, attention=attention)
    optimizer = OptimizerConfig(warmup=1, clip=0)
    program = t5_program(model, (config.source, config.target), optimizer, steps=1000)
    state = jax.jit(program.init)()
    batch = {k: jax.numpy.asarray(v)[None] for k, v in batch_of(config, model.vocabulary).items()}
    return compile_step(program.step, state, batch), state, batch


def ours(config: Config, attention: Implementation) -> Run:
    step, state, batch = compiled(config, attention)

    def run() -> float:
        nonlocal state
        for _ in range(config.steps):
            state, sums = step(state, batch)
        return float(sums["loss"][0] / sums["loss"][1])

    return run


def theirs(config: Config, attention: str) -> Run:
    import torch
    from transformers import MT5Config as TorchConfig
    from transformers import MT5ForConditionalGeneration

    c, device = config.model, "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    shape = TorchConfig(
        vocab_size=c.vocabulary,
        d_model=c.width,
        d_kv=c.head_size,
        d_ff=c.feed_forward,
        num_layers=c.layers,
        num_decoder_layers=c.decoder_depth,
        num_heads=c.heads,
        dropout_rate=config.dropout,
        decoder_start_token_id=101,
        use_cache=False,
        tie_word_embeddings=False,
    )
    model = MT5ForConditionalGeneration._from_config(shape, attn_implementation=attention).to(device).train()
    assert model.config._attn_implementation == attention
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, eps=1e-6, fused=True)
    batch = {name: torch.from_numpy(x).long().to(device) for name, x in batch_of(config, c.vocabulary).items()}
    call = torch.compile(model) if config.compiled else model

    def run() -> float:
        for _ in range(config.steps):
            with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
                loss = call(
                    input_ids=batch["source"],
                    attention_mask=batch["source_segments"],
                    decoder_input_ids=batch["target_inputs"],
                    labels=batch["target"],
                ).loss
            loss.backward()
            adamw.step()
            adamw.zero_grad(set_to_none=True)
        return loss.item()

    return run


def main() -> None:
    c = tyro.cli(Config)
    sides = {"ours" if name == "auto" else f"ours, {name}": partial(ours, c, name) for name in c.attention}
    measure(
        f"training step, {c.title}{', torch compiled' if c.compiled else ''}",
        sides | {f"torch, {name}": partial(theirs, c, name) for name in c.torch},
        c.clock,
        work=c.steps * c.rows * (c.source + c.target),
        unit="token",
        flops=c.steps * c.rows * flops_per_row(c.model, c.source, c.target) if c.dtype == "bfloat16" else 0,
    )


if __name__ == "__main__":
    main()
