"""BERT-flow: an invertible map of sentence vectors to a standard normal law, learned by maximum likelihood
(Li et al. 2020, arXiv 2011.05864), which whitening is measured against.

Glow (Kingma and Dhariwal 2018, arXiv 1807.03039) on vectors, with the published settings: levels of steps, each a scale
and shift by dimension, the dimensions reversed, and an additive coupling; after each level but the last half of the
dimensions leave.

Letters: n vectors, D their dimensions, B batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from retrieval.vectors.arrays import check_finite
from training.files.errors import DataError
from training.metrics import progress_bar
from training.ranges import check_ranges
from training.step import Sums, init_state, make_train_step

CHUNK = 50  # updates in one compiled program


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    levels: int = 3
    """After each but the last, half of the dimensions are done."""
    depth: int = 3
    """Steps of a level."""
    width: int = 32
    """Of a coupling's two hidden layers."""
    epochs: float = 1.0
    """Passes over the vectors."""
    batch_size: int = 32
    """Vectors of an update."""
    learning_rate: float = 1e-3
    """Of Adam."""
    seed: int = 0
    """Of the initial weights and the order of the vectors."""

    def __post_init__(self):
        check_ranges(self, levels=1, depth=1, width=1, epochs=0, batch_size=2, learning_rate=0, seed=(0, 1 << 32))


@struct.dataclass
class Coupling:
    """One step on d dimensions, of which the first half decides how the second is shifted."""

    log_scale: jax.Array  # [d]
    shift: jax.Array  # [d]
    kernels: tuple[jax.Array, ...]  # [d/2, width], [width, width], [width, d - d/2]
    biases: tuple[jax.Array, ...]


Flow = tuple[tuple[Coupling, ...], ...]  # levels of steps


def init(config: FlowConfig, width: int, key: jax.Array) -> Flow:
    """For vectors of `width`; each coupling begins as the identity.
    Raises DataError where there are too few dimensions."""
    if width < 2**config.levels:
        raise DataError(
            f"vectors of {width} dimensions: a flow of {config.levels} levels needs {2**config.levels} or more"
        )

    def coupling(d: int, key: jax.Array) -> Coupling:
        sizes = (d // 2, config.width, config.width, d - d // 2)
        shapes = list(zip(sizes, sizes[1:], strict=False))
        kernels = [0.05 * jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 2), shapes, strict=False)]
        biases = tuple(jnp.zeros(size) for size in sizes[1:])
        return Coupling(jnp.zeros(d), jnp.zeros(d), (*kernels, jnp.zeros(shapes[-1])), biases)

    levels = []
    for level_key in jax.random.split(key, config.levels):
        levels.append(tuple(coupling(width, k) for k in jax.random.split(level_key, config.depth)))
        width //= 2
    return tuple(levels)


def transform(flow: Flow, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x [B, D] -> z [B, D] and log |det dz/dx|, which is the same for every row: []."""
    done, logarithm = [], jnp.zeros(())
    for level in flow:
        for step in level:
            x = _shifted(step, ((x + step.shift[None]) * jnp.exp(step.log_scale)[None])[:, ::-1], 1)
            logarithm += step.log_scale.sum()
        if level is not flow[-1]:
            half = len(level[0].shift) // 2
            done.append(x[:, half:])
            x = x[:, :half]
    return jnp.concatenate([*done, x], 1), logarithm


def inverse(flow: Flow, z: jax.Array) -> jax.Array:
    """z [B, D] -> x [B, D]."""
    x = z[:, z.shape[1] - len(flow[-1][0].shift) :]
    for level in reversed(flow):
        if level is not flow[-1]:
            whole = len(level[0].shift)
            end = z.shape[1] - whole // 2
            x = jnp.concatenate([x, z[:, end - (whole - whole // 2) : end]], 1)
        for step in reversed(level):
            x = _shifted(step, x, -1)[:, ::-1] * jnp.exp(-step.log_scale)[None] - step.shift[None]
    return x


def _shifted(step: Coupling, x: jax.Array, sign: int) -> jax.Array:
    half = len(step.shift) // 2
    hidden = x[:, :half]
    *inner, last = zip(step.kernels, step.biases, strict=True)
    for kernel, bias in inner:
        hidden = jax.nn.relu(hidden @ kernel + bias[None])
    return jnp.concatenate([x[:, :half], x[:, half:] + sign * (hidden @ last[0] + last[1][None])], 1)


def loss(flow: Flow, batch: dict[str, jax.Array], key: jax.Array | None = None) -> Sums:
    """Sums for the engine: `loss`, the negative log likelihood by dimension, of {"x": [B, D]}."""
    z, logarithm = transform(flow, batch["x"])
    nats = jnp.sum(jnp.square(z) + jnp.log(2 * jnp.pi)) / 2 - len(z) * logarithm
    return {"loss": (nats / z.shape[1], jnp.float32(len(z)))}


def fit_flow(vectors: np.ndarray, config: FlowConfig) -> Flow:
    """The flow fitted to vectors [n, D]. Raises DataError for too few, for NaN, and where the likelihood diverges.

    Not by the engine: a flow takes seconds, so CHUNK updates are one compiled program, and nothing is kept in files.
    """
    check_finite(vectors)
    rows = min(config.batch_size, len(vectors))
    if rows < 2:
        raise DataError(f"{len(vectors)} vectors: a flow needs two or more")
    steps = max(round(config.epochs * len(vectors) / rows), 1)
    tx = optax.adam(config.learning_rate)
    random = np.random.default_rng(config.seed)
    epochs = -(-steps * rows // len(vectors))
    order = np.concatenate([random.permutation(len(vectors)) for _ in range(epochs)])[: steps * rows].reshape(
        steps, rows
    )
    state = init_state(partial(init, config, vectors.shape[1]), tx, config.seed)
    begin = jax.jit(_normalised)(state.model, jnp.asarray(vectors[order[0]], jnp.float32))
    state = replace(state, model=begin)
    run = jax.jit(partial(jax.lax.scan, make_train_step(loss, tx)), donate_argnums=0)
    bar = progress_bar(0, steps)
    for first in range(0, steps, CHUNK):
        chunk = order[first : first + CHUNK]
        state, sums = run(state, {"x": vectors[chunk][:, None].astype(np.float32)})
        if not np.isfinite(nats := np.asarray(sums["loss"][0])).all():
            raise DataError(
                f"the flow's likelihood is not finite at update {first + int(np.argmin(np.isfinite(nats))) + 1}: give "
                "a lower learning rate"
            )
        bar.update(len(chunk))
    bar.close()
    return state.model


def _normalised(flow: Flow, x: jax.Array) -> Flow:
    """Scales and shifts such that on this batch each step's input has mean 0 and variance 1, as Glow begins."""
    levels = []
    for level in flow:
        steps = []
        for step in level:
            mean, deviation = x.mean(0), x.std(0)
            step = replace(step, shift=-mean, log_scale=-jnp.log(deviation + 1e-6))
            steps.append(step)
            x = _shifted(step, ((x - mean[None]) / (deviation + 1e-6)[None])[:, ::-1], 1)
        levels.append(tuple(steps))
        x = x[:, : x.shape[1] // 2]
    return tuple(levels)


def flowed(flow: Flow) -> Callable[[np.ndarray], np.ndarray]:
    """What maps vectors [n, D] to the normal law's."""
    run = jax.jit(lambda x: transform(flow, x)[0])
    return lambda vectors: np.asarray(run(jnp.asarray(vectors, jnp.float32)))
