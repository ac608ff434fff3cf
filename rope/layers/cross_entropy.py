"""Token cross-entropy with the head's product, a few target positions at a time.

The logits of a whole batch ([B, T, V]: gigabytes at V = 50,000) never exist: the forward pass visits chunks of
positions, and takes each chunk's gradient while its logits are at hand, so no logits are kept for the backward pass and
none computed twice.
"""

from functools import partial

import jax
import jax.numpy as jnp

from training.partition import on_one_cpu, spec

Head = tuple[
    jax.Array, jax.Array | None
]  # kernel [D, V] of the hidden states' type, whole along D; float32 bias [V] or none
CHUNK_ELEMENTS = 2**26  # logits alive at once, per device: 256 MiB of float32, and half of it on one CPU


def of_labels(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of logits [..., V] those of the labels [...]: no gather, so V stays cut over the mesh."""
    number = jnp.arange(logits.shape[-1], out_sharding=spec("vocab"))
    return jnp.sum(jnp.where(labels[..., None] == jnp.expand_dims(number, range(labels.ndim)), logits, 0.0), axis=-1)


def _chunk_sums(
    hidden: jax.Array, head: Head, labels: jax.Array, weights: jax.Array, smoothing: float, z_loss: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(objective, (cross-entropy, correct)) sums over one chunk [B, C, D]."""
    kernel, bias = head
    # Flat, as one product of matrices: see rope.layers.primitives.matmul.
    hidden, labels, weights = (x.reshape(-1, *x.shape[2:]) for x in (hidden, labels, weights))
    logits = jnp.matmul(hidden, kernel, preferred_element_type=jnp.float32, out_sharding=spec("batch", "vocab"))
    logits = logits if bias is None else logits + bias[None]
    log_z, label_logit = jax.nn.logsumexp(logits, axis=-1), of_labels(logits, labels)
    entropy = log_z - label_logit
    objective = entropy
    if smoothing:
        objective = (1 - smoothing) * entropy + smoothing * (log_z - logits.mean(-1))
    if z_loss:
        objective = objective + z_loss * jnp.square(log_z)
    correct = (label_logit >= logits.max(-1)).astype(jnp.float32)
    return jnp.sum(objective * weights), (jnp.sum(entropy * weights), jnp.sum(correct * weights))


def _chunks(hidden: jax.Array, head: Head) -> int:
    """How many chunks of target positions: a divisor of T that keeps a chunk's logits at CHUNK_ELEMENTS a device or
    below, or T where none does. Each reads the sum of the head's gradients, and writes it."""
    rows, length = jax.typeof(hidden).sharding.shard_shape(hidden.shape)[:2]
    vocabulary = jax.typeof(head[0]).sharding.shard_shape(head[0].shape)[1]
    most = CHUNK_ELEMENTS // 2 if on_one_cpu() else CHUNK_ELEMENTS
    return next(
        n for n in range(1, length + 1) if length % n == 0 and (rows * length * vocabulary <= n * most or n == length)
    )


def _split(x: jax.Array, n: int) -> jax.Array:
    """[B, T, ...] -> [n, B, T / n, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], n, -1, *x.shape[2:]), 1, 0)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden: jax.Array,
    head: Head,
    labels: jax.Array,
    weights: jax.Array,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sums over all positions of (objective, cross-entropy, correct predictions), float32 scalars.

    hidden [B, T, D]; head (kernel [D, V], bias [V] or None); labels int [B, T]; weights float [B, T]. The objective is
    the cross-entropy against labels smoothed with a uniform share `smoothing`, plus z_loss * log(Z)^2 (PaLM, arXiv
    2204.02311, section 5). Only the objective has a gradient, in hidden and head.
    """
    n = _chunks(hidden, head)
    chunk = lambda c: _chunk_sums(c[0], head, c[1], c[2], smoothing, z_loss)  # noqa: E731
    objective, (entropy, correct) = jax.lax.map(chunk, tuple(_split(x, n) for x in (hidden, labels, weights)))
    return objective.sum(), entropy.sum(), correct.sum()


@jax.named_scope("loss")
def _forward(hidden, head, labels, weights, smoothing, z_loss):
    n = _chunks(hidden, head)

    def chunk(head_gradient, c):
        h, y, w = c
        grad = jax.value_and_grad(_chunk_sums, argnums=(0, 1), has_aux=True)
        (objective, (entropy, correct)), (dh, dhead) = grad(h, head, y, w, smoothing, z_loss)
        total = jax.tree.map(lambda total, part: total + part.astype(jnp.float32), head_gradient, dhead)
        return total, (dh, jnp.stack([objective, entropy, correct]))

    # Sums over chunks, so float32 whatever the head's type.
    zero = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), head)
    dhead, (dhidden, sums) = jax.lax.scan(chunk, zero, tuple(_split(x, n) for x in (hidden, labels, weights)))
    dhidden = jnp.moveaxis(dhidden, 0, 1).reshape(hidden.shape)
    return tuple(sums.sum(0)), (dhidden, dhead)


@jax.named_scope("loss")
def _backward(smoothing, z_loss, gradients, cotangents):
    dhidden, (dkernel, dbias) = jax.tree.map(lambda g: g * cotangents[0].astype(g.dtype), gradients)
    return dhidden, (dkernel.astype(dhidden.dtype), dbias), None, None


cross_entropy.defvjp(_forward, _backward)
