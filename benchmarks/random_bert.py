"""A BERT of random weights, for both sides of a comparison."""

from functools import partial

import jax
import numpy as np

from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder
from rope.encoder.roformer import PoolerKind, RoFormer, RoFormerConfig, init
from training.files.weights import empty


def random_bert(tokenizer: PegasusTokenizer, width: int, layers: int, pooler: PoolerKind = "tanh") -> TextEncoder:
    """The same in all processes; loud, so that what is computed is all over the range."""
    shape = RoFormerConfig(
        vocabulary=tokenizer.vocab_size, width=width, feed_forward=4 * width, heads=width // 64, layers=layers,
        positions="learned", pooler=pooler,
    )  # fmt: skip
    random = np.random.default_rng(0)

    def draw(path, x: np.ndarray) -> np.ndarray:
        noise = random.standard_normal(x.shape, np.float32)
        return 1 + 0.1 * noise if "scale" in jax.tree_util.keystr(path) else np.float32(0.05) * noise

    model: RoFormer = jax.tree.map_with_path(draw, empty(partial(init, shape)))
    return TextEncoder(model, shape, tokenizer)
