"""The encoder and one decoding step as StableHLO, to serve a model where this project's code is not.

A folder holds `encoder.stablehlo` and `decode_step.stablehlo` (jax.export, for CPU, CUDA and TPU), `weights.safetensors`, the
tokenizer, and `serving.json`, which says what goes in and out. docs/export.md has a greedy decoder on top in a dozen lines.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from pegasus_zh.decoding import Memory, decode_step, remember, unstacked
from pegasus_zh.huggingface import check_new
from pegasus_zh.load import Loaded
from pegasus_zh.mt5 import MT5, MT5Config
from pegasus_zh.weights import write_safetensors
from training.whole import whole, write_json

PLATFORMS = ("cpu", "cuda", "tpu")
Arrays = dict[str, jax.Array]


def named(model: MT5) -> Arrays:
    """The model's arrays by name, such as encoder/blocks/self_attention/query; layers are stacked."""
    leaves = jax.tree.leaves_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def functions(config: MT5Config, like: MT5, pad: int):
    """(encoder, decode_step) of arrays by name instead of a model.

    encoder(weights, source [b, s]) -> memory: keys [L, b, N, H, s], values [L, b, N, s, H] and seen [b, s]. decode_step(weights,
    memory, keys [L, b, N, H, p], values [L, b, N, p, H], token [b], t) -> float32 logits [b, V] of the token after position t, and keys and
    values with position t in them.
    """
    structure, names = jax.tree.structure(like), list(named(like))

    def model_of(weights: Arrays) -> MT5:
        return jax.tree.unflatten(structure, [weights[name] for name in names])

    def encoder(weights: Arrays, source: jax.Array) -> Arrays:
        memory = remember(model_of(weights), source, (source != pad).astype(jnp.int32), config)
        return {"keys": jnp.stack(memory.keys), "values": jnp.stack(memory.values), "seen": memory.seen}

    def step(weights: Arrays, memory: Arrays, keys: jax.Array, values: jax.Array, token: jax.Array, t: jax.Array):
        model = model_of(weights)
        remembered = Memory(
            keys=tuple(memory["keys"]),
            values=tuple(memory["values"]),
            seen=memory["seen"],
            layers=unstacked(model, config),
        )
        cache = list(zip(keys, values, strict=True))
        path = jnp.zeros((token.shape[0], 1, keys.shape[-1]), jnp.int32)
        logits, cache = decode_step(model, remembered, cache, path, token[:, None], t, config)
        return logits[:, 0], *map(jnp.stack, zip(*cache, strict=True))

    return encoder, step


def write_serving(out: Path, loaded: Loaded, dtype: str = "float32") -> None:
    """Writes the folder `out`, whole or not at all. Raises DataError where there is something already."""
    out = out.absolute()
    check_new(out)
    config, tokenizer = replace(loaded.config, dtype=dtype), loaded.tokenizer
    encoder, step = functions(config, loaded.model, tokenizer.pad_id)
    type_ = jnp.dtype(dtype)
    shape = lambda *dimensions, of=type_: jax.ShapeDtypeStruct(dimensions, of)  # noqa: E731
    weights = {name: shape(*x.shape) for name, x in named(loaded.model).items()}
    b, s, p = export.symbolic_shape("b, s, p")
    lead, size = (config.layers, b, config.heads), config.head_size
    cache = shape(*lead, size, p), shape(*lead, p, size)
    memory = {"keys": shape(*lead, size, s), "values": shape(*lead, s, size), "seen": shape(b, s, of=jnp.bool_)}
    token, t = shape(b, of=jnp.int32), shape(of=jnp.int32)
    programs = {
        "encoder": (encoder, (weights, shape(b, s, of=jnp.int32))),
        "decode_step": (step, (weights, memory, *cache, token, t)),
    }
    with whole(out) as temporary:
        temporary.mkdir()
        for name, (function, arguments) in programs.items():
            exported = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
            (temporary / f"{name}.stablehlo").write_bytes(exported.serialize())
        write_safetensors(temporary / "weights.safetensors", iter(named(loaded.model).items()), dtype)
        tokenizer.save(temporary)
        about = {
            "start": tokenizer.start_id,
            "end": tokenizer.eos_id,
            "pad": tokenizer.pad_id,
            "keys": [config.layers, "b", config.heads, config.head_size, "p"],
            "values": [config.layers, "b", config.heads, "p", config.head_size],
            "dtype": dtype,
            "platforms": PLATFORMS,
            "source": loaded.source,
        }
        write_json(temporary / "serving.json", about)
