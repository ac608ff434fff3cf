"""The encoder and one decoding step as StableHLO, to serve a model where this project's code is not.

A folder holds `encoder.stablehlo` and `decode_step.stablehlo` (jax.export, for CPU, CUDA and TPU),
`weights.safetensors`, the tokenizer, and `serving.json`, which says what goes in and out. docs/export.md has a greedy
decoder on top in a dozen lines.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from pegasus_zh.t5.decoder import Memory, MT5Decoder
from pegasus_zh.t5.load import Loaded
from pegasus_zh.t5.mt5 import MT5, MT5Config
from training.files.atomic import atomic_write, check_new, write_json
from training.files.buckets import absolute
from training.files.weights import write_safetensors
from training.partition import Dtype

PLATFORMS = ("cpu", "cuda", "tpu")
Arrays = dict[str, jax.Array]
_BLOCKS = "/blocks/"  # in the names of what every layer has


def named(model: MT5) -> Arrays:
    """The model's arrays by name, such as encoder/blocks/3/self_attention/query: layer by layer, since to take a layer
    out of a stack would be a copy at every step."""
    found: Arrays = {}
    for name, x in zip(_names(model), jax.tree.leaves(model), strict=True):
        found |= {_of_layer(name, i): x[i] for i in range(len(x))} if _BLOCKS in name else {name: x}
    return found


def _names(model: MT5) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(model)]


def _of_layer(name: str, layer: int) -> str:
    return name.replace(_BLOCKS, f"{_BLOCKS}{layer}/")


def functions(
    config: MT5Config, like: MT5, pad: int
) -> tuple[Callable[..., dict[str, Any]], Callable[..., tuple[jax.Array, list[jax.Array], list[jax.Array]]]]:
    """(encoder, decode_step) of arrays by name instead of a model.

    encoder(weights, source [b, s]) -> memory: keys [b, N, H, s] and values [b, N, s, H] of each layer, and seen [b, s].
    decode_step(weights, memory, keys, values, token [b], t) -> float32 logits [b, V] of the token after position t, and
    keys [b, N, H, p] and values [b, N, p, H] of each layer with position t in them.
    """
    structure, depths = jax.tree.structure(like), {"encoder": config.layers, "decoder": config.decoder_depth}
    names, block, decoder = _names(like), jax.tree.structure(like.decoder.blocks), MT5Decoder(config)

    def array(weights: Arrays, name: str) -> jax.Array:
        if _BLOCKS not in name:
            return weights[name]
        return jnp.stack([weights[_of_layer(name, i)] for i in range(depths[name.partition("/")[0]])])

    def model_of(weights: Arrays) -> MT5:
        return jax.tree.unflatten(structure, [array(weights, name) for name in names])

    def encoder(weights: Arrays, source: jax.Array) -> dict[str, Any]:
        memory = decoder.begin(model_of(weights), source, (source != pad).astype(jnp.int32))
        return {"keys": list(memory.keys), "values": list(memory.values), "seen": memory.seen}

    def step(
        weights: Arrays,
        memory: dict[str, Any],
        keys: list[jax.Array],
        values: list[jax.Array],
        token: jax.Array,
        t: jax.Array,
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        own = [name for name in names if name.startswith(f"decoder{_BLOCKS}")]
        remembered = Memory(
            keys=tuple(memory["keys"]),
            values=tuple(memory["values"]),
            seen=memory["seen"],
            layers=tuple(
                jax.tree.unflatten(block, [weights[_of_layer(name, i)] for name in own])
                for i in range(config.decoder_depth)
            ),
        )
        path = jnp.zeros((token.shape[0], 1, keys[0].shape[-1]), jnp.int32)
        model, cache = model_of(weights), list(zip(keys, values, strict=True))
        hidden, cache = decoder.step(model, remembered, cache, token[:, None], path, t)
        return decoder.logits(model, hidden)[:, 0], [key for key, _ in cache], [value for _, value in cache]

    return encoder, step


def write_serving(out: Path, loaded: Loaded, dtype: Dtype = "float32") -> None:
    """Writes the folder `out`, whole or not at all. Raises DataError where there is something already."""
    out = absolute(out)
    check_new(out)
    config, tokenizer = replace(loaded.config, dtype=dtype), loaded.tokenizer
    encoder, step = functions(config, loaded.model, tokenizer.pad_id)
    type_ = jnp.dtype(dtype)
    shape = lambda *dimensions, of=type_: jax.ShapeDtypeStruct(dimensions, of)  # noqa: E731
    weights = {name: shape(*x.shape) for name, x in named(loaded.model).items()}
    b, s, p = export.symbolic_shape("b, s, p")
    each = lambda *dimensions: [shape(b, config.heads, *dimensions)] * config.decoder_depth  # noqa: E731
    size = config.head_size
    cache = each(size, p), each(p, size)
    memory = {"keys": each(size, s), "values": each(s, size), "seen": shape(b, s, of=jnp.bool_)}
    token, t = shape(b, of=jnp.int32), shape(of=jnp.int32)
    programs = {
        "encoder": (encoder, (weights, shape(b, s, of=jnp.int32))),
        "decode_step": (step, (weights, memory, *cache, token, t)),
    }
    with atomic_write(out) as temporary:
        temporary.mkdir()
        for name, (function, arguments) in programs.items():
            exported = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
            (temporary / f"{name}.stablehlo").write_bytes(exported.serialize())
        write_safetensors(temporary / "weights.safetensors", iter(named(loaded.model).items()), dtype)
        tokenizer.save(temporary)
        write_json(temporary / "serving.json", describe(loaded, config) | {"platforms": PLATFORMS})


def describe(loaded: Loaded, config: MT5Config) -> dict[str, Any]:
    """What who serves the model must know: marks, and the cache's shapes."""
    tokenizer = loaded.tokenizer
    return {
        "start": tokenizer.start_id,
        "end": tokenizer.eos_id,
        "pad": tokenizer.pad_id,
        "layers": config.decoder_depth,
        "keys": ["b", config.heads, config.head_size, "p"],
        "values": ["b", config.heads, "p", config.head_size],
        "dtype": config.dtype,
        "source": loaded.source,
    }
