"""T5 v1.1, and what bert4keras computes otherwise, one position and one head at a time, in float64.

Written from the papers (arXiv 1910.10683, 1910.07467, 2002.05202) and from a description of bert4keras, over weights by
their names in transformers. One pair, without padding.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pegasus_zh.t5.mt5 import MT5Config
from tests.rope.positions.test_buckets import plain_bucket


def reference_logits(
    weights: Mapping[str, np.ndarray], config: MT5Config, source: Sequence[int], inputs: Sequence[int]
) -> np.ndarray:
    """[T, V] of a source and the decoder's inputs."""
    w = {name: np.asarray(x, np.float64) for name, x in weights.items()}
    encoded = stack(w, "encoder", config, source, None)
    hidden = stack(w, "decoder", config, inputs, encoded)
    if config.scaled_output:
        hidden = [x / math.sqrt(config.width) for x in hidden]
    return np.stack([w["lm_head.weight"] @ x for x in hidden])


def stack(w: Mapping, name: str, config: MT5Config, ids: Sequence[int], encoded: list | None) -> list[np.ndarray]:
    is_decoder = encoded is not None
    table = w[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    states = [w["shared.weight"][i] for i in ids]

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / math.sqrt(sum(x * x) / len(x) + config.epsilon) * scale

    def bias(query: int, key: int, head: int) -> float:
        return table[plain_bucket(key - query, not is_decoder, config.buckets, config.max_distance), head]

    for layer in range(config.decoder_depth if is_decoder else config.layers):
        place = f"{name}.block.{layer}.layer"

        normed = [norm(x, w[f"{place}.0.layer_norm.weight"]) for x in states]
        heads = attend(w, f"{place}.0.SelfAttention", config, normed, normed, bias, causal=is_decoder)
        states = [x + y for x, y in zip(states, heads, strict=True)]
        if is_decoder:
            normed = [norm(x, w[f"{place}.1.layer_norm.weight"]) for x in states]
            cross = bias if config.cross_bias else lambda query, key, head: 0.0
            heads = attend(w, f"{place}.1.EncDecAttention", config, normed, encoded, cross, causal=False)
            states = [x + y for x, y in zip(states, heads, strict=True)]
        last = 2 if is_decoder else 1
        for t, x in enumerate(states):
            x = norm(x, w[f"{place}.{last}.layer_norm.weight"])
            dense = f"{place}.{last}.DenseReluDense"
            gate = np.array([gelu(g, config.gelu) for g in w[f"{dense}.wi_0.weight"] @ x])
            states[t] = states[t] + w[f"{dense}.wo.weight"] @ (gate * (w[f"{dense}.wi_1.weight"] @ x))
    return [norm(x, w[f"{name}.final_layer_norm.weight"]) for x in states]


def gelu(x: float, kind: str) -> float:
    if kind == "erf":
        return x / 2 * (1 + math.erf(x / math.sqrt(2)))
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attend(
    w: Mapping, place: str, config: MT5Config, queries: list, keys: list, bias, causal: bool
) -> list[np.ndarray]:
    size, results = config.head_size, []
    q, k, v = (w[f"{place}.{x}.weight"] for x in "qkv")
    for t, query in enumerate(queries):
        mixed = []
        for head in range(config.heads):
            rows = slice(head * size, (head + 1) * size)
            seen = keys[: t + 1] if causal else keys
            scores = [q[rows] @ query @ (k[rows] @ key) + bias(t, s, head) for s, key in enumerate(seen)]
            raised = [math.exp(score - max(scores)) for score in scores]
            mixed.append(sum(e / sum(raised) * (v[rows] @ key) for e, key in zip(raised, seen, strict=True)))
        results.append(w[f"{place}.o.weight"] @ np.concatenate(mixed))
    return results
