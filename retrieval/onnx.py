"""An encoder with all that makes its vectors, pooling, Dense, whitening and length 1, as one ONNX program.

jax2onnx translates the functions of `retrieval.vectors`. Letters: B texts, T positions, K dimensions of a vector.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from retrieval.vectors.modules import Activation, Dense, Step
from retrieval.vectors.pooling import Pooling, embed
from rope.encoder.roformer import RoFormer, RoFormerConfig
from training.files.errors import DataError

FILE = "vectors.onnx"
_AFTER: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "Identity": lambda x: x,
    "Tanh": jnp.tanh,
    "ReLU": lambda x: jnp.maximum(x, 0),
}


def check_converter() -> None:
    """Raises DataError where jax2onnx is not installed."""
    try:
        import jax2onnx  # noqa: F401
    except ImportError:
        raise DataError("--onnx needs jax2onnx: pip install 'pegasus-zh[onnx]'") from None


def write_onnx(path: Path, model: RoFormer, config: RoFormerConfig, pooling: Pooling, steps: Sequence[Step]) -> None:
    """Writes input_ids and attention_mask, int32 [B, T] -> sentence_embedding, float32 [B, K], of any B and T.

    The mask is 1 for a text's ids and 0 for the padding after them. Raises DataError as `check_converter`, and for a
    model that one file cannot hold.
    """
    check_converter()
    for name in ("jax2onnx", "onnx_ir"):  # each plugin that it does without, and shapes that are not constant
        logging.getLogger(name).setLevel(logging.ERROR)
    from jax2onnx import to_onnx

    config = replace(config, dtype="float32", attention="xla")
    longest = [f"t <= {config.max_positions}"] if config.positions == "learned" else []
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("b, t", constraints=longest), jnp.int32)

    def vectors(ids: jax.Array, mask: jax.Array) -> jax.Array:
        places = jax.lax.broadcasted_iota(jnp.int32, ids.shape, 1)  # of one text a row: no cumulative maximum
        found = embed(model, ids, mask, config, [pooling], positions=places)[:, 0, 0]
        for step in steps:
            found = _dense(step, found) if isinstance(step, Dense) else _unit(found)
        return found

    program = to_onnx(
        vectors,
        inputs=[rows, rows],
        input_names=["input_ids", "attention_mask"],
        output_names=["sentence_embedding"],
    )
    if program.ByteSize() >= 1 << 31:
        raise DataError(f"--onnx: the model has {program.ByteSize():,} bytes, and an ONNX file ends at 2 GB")
    path.write_bytes(program.SerializeToString())


def _dense(step: Dense, vectors: jax.Array) -> jax.Array:
    return _AFTER[step.activation](vectors @ step.kernel + step.bias[None])


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
