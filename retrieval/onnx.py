"""An encoder with all that makes its vectors, pooling, Dense, whitening and length 1, as one ONNX program.

Letters: B texts, T positions, K dimensions of a vector.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from retrieval.vectors.pooling import Pooling, embed
from retrieval.vectors.steps import Step, after
from rope.encoder.roformer import RoFormer, RoFormerConfig
from training.onnx import write_onnx

FILE = "vectors.onnx"


def write_vectors(path: Path, model: RoFormer, config: RoFormerConfig, pooling: Pooling, steps: Sequence[Step]) -> None:
    """Writes input_ids and attention_mask, int32 [B, T] -> sentence_embedding, float32 [B, K], of any B and T.

    The mask is 1 for a text's ids and 0 for the padding after them. Raises DataError as training.onnx.write_onnx.
    """
    config = replace(config, dtype="float32", attention="xla")
    longest = [f"t <= {config.max_positions}"] if config.positions == "learned" else []
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("b, t", constraints=longest), jnp.int32)

    def vectors(ids: jax.Array, mask: jax.Array) -> jax.Array:
        places = jax.lax.broadcasted_iota(jnp.int32, ids.shape, 1)  # of one text a row: no cumulative maximum
        return after(steps, embed(model, ids, mask, config, [pooling], positions=places)[:, 0, 0])

    write_onnx(path, vectors, {"input_ids": rows, "attention_mask": rows}, ["sentence_embedding"])
