"""Random small encoders and rows for them; every array matters to the result, biases and norms too."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from rope.encoder.roformer import PRESETS, RoFormer, RoFormerConfig, encode_layers, init, logits, pool
from training.files.weights import hollow

# No two sizes are equal, so that a wrong axis cannot pass.
SIZES = {"vocabulary": 50, "width": 24, "feed_forward": 20, "heads": 3, "layers": 2, "types": 3, "max_positions": 40}
ROFORMER = RoFormerConfig(**SIZES | {"max_positions": 1536}, embedding=10, dropout=0.2)
BERT = RoFormerConfig(**SIZES, positions="learned", attention_dropout=0.3)


def random_encoder(config: RoFormerConfig, seed: int = 0) -> RoFormer:
    """NumPy arrays."""
    random = np.random.default_rng(seed)

    def draw(path, x: np.ndarray) -> np.ndarray:
        name, noise = jax.tree_util.keystr(path), random.standard_normal(x.shape).astype(np.float32)
        if "scale" in name:
            return np.exp(0.3 * noise)
        return noise * np.float32(1.5 * x.shape[-2] ** -0.5) if "kernel" in name else 0.3 * noise

    return jax.tree.map_with_path(draw, hollow(partial(init, config)))


def random_rows(config: RoFormerConfig, length: int = 17, seed: int = 1) -> dict[str, np.ndarray]:
    """Three rows, of which two end in padding: ids, types, and the segment 1 where tokens are."""
    random = np.random.default_rng(seed)
    lengths = np.array([[length], [length - 5], [length // 2]])
    segments = (np.arange(length)[None] < lengths).astype(np.int32)
    ids, types = random.integers(1, config.vocabulary, (3, length)), random.integers(0, config.types, (3, length))
    return {"ids": ids.astype(np.int32) * segments, "segments": segments, "types": types.astype(np.int32) * segments}


@partial(jax.jit, static_argnames="config")
def outputs(model: RoFormer, rows: dict[str, np.ndarray], config: RoFormerConfig) -> dict[str, jax.Array]:
    """The hidden states, those after the first layer, and, where the model has them, logits and pooled rows."""
    hidden, first = encode_layers(model, rows["ids"], rows["segments"], config, types=rows["types"], outputs=(-1, 0))
    found = {"hidden": hidden, "first": first}
    if config.head:
        found["logits"] = logits(model, hidden, config)
    if config.pooler != "none":
        found["pooled"] = pool(model, hidden, config)
    return found


@contextmanager
def one_layer_preset():
    """The preset tiny with as much as a test needs, and half the compiling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], layers=1, width=32, feed_forward=64))
        yield
