"""The encoder and one decoding step as ONNX, to serve a model by onnxruntime.

A folder holds `encoder.onnx` and `decode_step.onnx`, each with its weights, the tokenizer, and `serving.json`, which
says what goes in and out. Lengths are fixed: jax2onnx has no symbolic ones for T5's relative bias.

Letters: B rows, any number, S source and P target positions, N heads, H head size, V vocabulary.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from pegasus_zh.t5.decoder import Memory, MT5Decoder
from pegasus_zh.t5.load import Loaded
from pegasus_zh.t5.stablehlo import describe
from rope.decoding.cache import unstacked
from training.files.atomic import atomic_write, check_new, write_json
from training.files.buckets import absolute
from training.onnx import write_onnx


def write_onnx_serving(out: Path, loaded: Loaded, source: int, target: int) -> None:
    """Writes the folder `out`, whole or not at all, for texts of S = source and P = target positions, in float32.

    encoder: source int32 [B, S] -> memory_keys_0 [B, N, H, S] and memory_values_0 [B, N, S, H], 1, … of the decoder's
    layers, and seen bool [B, S]. decode_step: those, keys_0 [B, N, H, P] and values_0 [B, N, P, H], …, token int32 [B]
    and t int32 [] -> logits float32 [B, V] of the token after position t, and new_keys_0 and new_values_0, … with
    position t in them. Raises DataError where there is something already, and as write_onnx.
    """
    out = absolute(out)
    check_new(out)
    config, pad = replace(loaded.config, dtype="float32", attention="xla"), loaded.tokenizer.pad_id
    layers = config.decoder_depth
    decoder, model = MT5Decoder(config), jax.tree.map(jnp.asarray, loaded.model)
    blocks = unstacked(model.decoder.blocks, layers)
    (b,) = export.symbolic_shape("b")
    arrays = lambda *sizes, of=jnp.float32: jax.ShapeDtypeStruct((b, *sizes), of)  # noqa: E731
    heads, size = config.heads, config.head_size

    def named(prefix: str, length: int) -> dict[str, jax.ShapeDtypeStruct]:
        keys = {f"{prefix}keys_{i}": arrays(heads, size, length) for i in range(layers)}
        return keys | {f"{prefix}values_{i}": arrays(heads, length, size) for i in range(layers)}

    def encoder(ids: jax.Array) -> tuple[jax.Array, ...]:
        memory = decoder.begin(model, ids, (ids != pad).astype(jnp.int32))
        return (*memory.keys, *memory.values, memory.seen)

    def step(*given: jax.Array) -> tuple[jax.Array, ...]:
        *stacks, token, t = given
        remembered, seen, cache = stacks[: 2 * layers], stacks[2 * layers], stacks[2 * layers + 1 :]
        memory = Memory(keys=tuple(remembered[:layers]), values=tuple(remembered[layers:]), seen=seen, layers=blocks)
        path = jnp.zeros((token.shape[0], 1, target), jnp.int32)
        kept = list(zip(cache[:layers], cache[layers:], strict=True))
        hidden, kept = decoder.step(model, memory, kept, token[:, None], path, t)
        return (decoder.logits(model, hidden)[:, 0], *(key for key, _ in kept), *(value for _, value in kept))

    memory = named("memory_", source) | {"seen": arrays(source, of=jnp.bool_)}
    cache = named("", target)
    last = {"token": arrays(of=jnp.int32), "t": jax.ShapeDtypeStruct((), jnp.int32)}
    with atomic_write(out) as temporary:
        temporary.mkdir()
        write_onnx(temporary / "encoder.onnx", encoder, {"source": arrays(source, of=jnp.int32)}, list(memory))
        wanted = ["logits", *(f"new_{name}" for name in cache)]
        write_onnx(temporary / "decode_step.onnx", step, memory | cache | last, wanted)
        loaded.tokenizer.save(temporary)
        write_json(
            temporary / "serving.json", describe(loaded, config) | {"source_length": source, "target_length": target}
        )
