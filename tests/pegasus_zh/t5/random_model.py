"""Random small models and pairs, the same at each call; every kind of parameter matters to the result."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh.rows.packing import SOURCE, TARGET, decode_rows, encode_row
from pegasus_zh.t5.mt5 import MT5, MT5Config, init
from training.files.weights import hollow

# No two sizes are equal, so that a wrong axis cannot pass; heads x head_size is not the width.
TINY = MT5Config(
    vocabulary=64, width=16, feed_forward=20, heads=2, head_size=12, layers=2, buckets=8, max_distance=16, dropout=0.0
)
START, EOS = 5, 1
SHAPE = (64, 32)  # positions of a row's source and target side

Pair = tuple[np.ndarray, np.ndarray]


def random_model(config: MT5Config, seed: int = 0) -> MT5:
    """Of `init`'s variances, but norm scales are not ones, relative biases are as large as scores, attention speaks up.

    NumPy draws: `init` would be compiled for each configuration, in every worker that collects tests.
    """
    random = np.random.default_rng(seed)

    def draw(path, x: np.ndarray) -> jax.Array:
        name, noise = jax.tree_util.keystr(path), random.standard_normal(x.shape)
        if "norm" in name:
            noise = np.exp(0.3 * noise)
        elif "query" in name:
            noise *= (config.width * config.head_size) ** -0.5
        elif "attention" in name and "output" in name:
            noise *= 4 * x.shape[-2] ** -0.5
        elif "relative_bias" not in name and "embedding" not in name:
            noise *= x.shape[-2] ** -0.5
        return jnp.asarray(noise, x.dtype)

    return jax.tree.map_with_path(draw, hollow(partial(init, config)))


def on_mesh(model: MT5, config: MT5Config) -> MT5:
    """The model cut as training cuts it, over the mesh that is set."""
    shapes = jax.eval_shape(partial(init, config), jax.random.key(0))
    return jax.tree.map(lambda x, shape: jax.device_put(np.asarray(x), shape.sharding.spec), model, shapes)


def random_pairs(count: int, config: MT5Config, seed: int = 0, source: int = 20, target: int = 10) -> list[Pair]:
    """(source, labels) of random lengths up to `source` and `target`, both ending with EOS."""
    random = np.random.default_rng(seed)

    def ids(longest: int) -> np.ndarray:
        return np.append(random.integers(3, config.vocabulary, random.integers(longest // 2, longest)), EOS)

    return [(ids(source), ids(target)) for _ in range(count)]


def rows(pairs: Sequence[Sequence[Pair]], source: int, target: int) -> dict[str, np.ndarray]:
    """One row for each list of pairs, `source` + `target` positions long."""
    records = [encode_row(row, "<u2") if row else b"" for row in pairs]
    return decode_rows(records, "<u2", {SOURCE: source, TARGET: target}, pad_id=0, start_id=START)


def token_of_some_rows(outputs) -> int:
    """A token that some rows of ids [B, T] hold and others do not: ending with it, rows have unequal lengths."""
    outputs = np.asarray(outputs)
    found = [(outputs == token).any(1) for token in range(outputs.max() + 1)]
    return max(token for token, held in enumerate(found) if held.any() and not held.all())
