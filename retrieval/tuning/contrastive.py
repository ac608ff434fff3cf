"""What pulls like sentences together: the losses of SimCSE and CoSENT over the batch of the whole mesh,
and their gradient in pieces.

SimCSE (Gao, Yao, Chen 2021, arXiv 2104.08821; in Chinese: https://kexue.fm/archives/8348), CoSENT (Su,
https://kexue.fm/archives/8847), gradient caching (Gao, Zhang, Han, Callan 2021, arXiv 2101.06983).

Letters: M microbatches, B examples, S sentences of an example, T positions, D dimensions.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from training.partition import replicate, spec
from training.step import Batch, Gradients, Sums

Loss = Literal["simcse", "pairs", "cosent", "softmax"]
VectorLoss = Callable[[jax.Array, Batch], Sums]  # (vectors [B, S, D], what else the batch has, [B, ...]) -> sums
SCALE = 20.0  # of cosines; 1 / temperature
ITSELF = 1e12


def simcse(vectors: jax.Array, batch: Batch, scale: float = SCALE) -> Sums:
    """Each of two views of a sentence is to find the other among all views of the batch: [B, 2, D]."""
    b, s, d = vectors.shape
    views = _merge(_normalised(vectors), (b * s, d))
    scores = scale * _products(views, views)
    rows, columns = (
        jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis, out_sharding=_of(scores)) for axis in (0, 1)
    )
    scores = jnp.where(rows == columns, -ITSELF, scores)
    return cross_entropy(scores, rows ^ 1 == columns)


def pairs(vectors: jax.Array, batch: Batch, scale: float = SCALE) -> Sums:
    """The first sentence of an example is to find its second among all but the first ones of the batch: [B, S, D].

    Of a third and further ones, which are hard negatives, every example sees all, but not a copy of its own first or
    second: batch["texts"], [B, S], has the same number for the same text.
    """
    b, s, d = vectors.shape
    unit, texts = _normalised(vectors), batch["texts"]
    scores = scale * _products(unit[:, 0], _merge(unit[:, 1:], (b * (s - 1), d)))
    rows, columns = (
        jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis, out_sharding=_of(scores)) for axis in (0, 1)
    )
    target, others = rows * (s - 1) == columns, replicate(_merge(texts[:, 1:], (b * (s - 1),)))[None]
    copies = (others == texts[:, :1]) | (others == texts[:, 1:2])
    return cross_entropy(jnp.where(copies & ~target, -ITSELF, scores), target)


def cosent(vectors: jax.Array, batch: Batch, scale: float = SCALE) -> Sums:
    """Cosines are to be ordered as the scores [B] of the pairs are: [B, 2, D]."""
    unit = _normalised(vectors)
    cosines, wanted = jnp.sum(unit[:, 0] * unit[:, 1], -1), batch["scores"]
    everywhere, all_wanted = replicate(cosines), replicate(wanted)
    # log(1 + sum of exp(scale (cosine of the worse pair - cosine of the better one))); rows are of the worse ones.
    wrong = scale * (cosines[:, None] - everywhere[None])
    wrong = jnp.where(wanted[:, None] < all_wanted[None], wrong, -ITSELF)
    top = jax.lax.stop_gradient(jnp.maximum(wrong.max(), 0))
    total = top + jnp.log(jnp.exp(-top) + jnp.exp(wrong - top).sum())
    return {"loss": (total, jnp.ones(()))}


LOSSES: dict[Loss, Callable[..., Sums]] = {"simcse": simcse, "pairs": pairs, "cosent": cosent}


def _normalised(vectors: jax.Array) -> jax.Array:
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(vectors), -1, keepdims=True), 1e-16))


def _merge(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.lax.reshape(x, shape, out_sharding=spec("batch", *(None for _ in shape[1:])))


def _of(x: jax.Array) -> jax.sharding.Sharding:
    return jax.typeof(x).sharding


def _products(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[R, D], [C, D] -> [R, C], R cut over the mesh: every device multiplies its rows with the columns of all."""
    return jnp.einsum("RD,CD->RC", rows, replicate(columns))


def cross_entropy(scores: jax.Array, target: jax.Array) -> Sums:
    """Cross entropy and accuracy of finding each row's one target: scores and where it is, both [R, C]."""
    right = jnp.sum(jnp.where(target, scores, 0), 1)
    best = jnp.max(jnp.where(target, -jnp.inf, scores), 1)
    weight = jnp.float32(len(scores))
    return {
        "loss": (jnp.sum(jax.nn.logsumexp(scores, 1) - right), weight),
        "accuracy": (jnp.sum((right > best).astype(jnp.float32)), weight),
    }


def cached_gradients(embed: Callable[[Any, Batch, jax.Array | None], jax.Array], loss: VectorLoss) -> Gradients:
    """Sums and gradient of a loss over the vectors of all microbatches together, in the memory of one.

    embed: (model, microbatch, key) -> vectors [B, S, D]. Each microbatch is computed twice: for its vectors, and once
    the loss's gradient by them is known, for the gradient by the model.
    """

    def gradients(model: Any, batch: Batch, keys: jax.Array) -> tuple[Sums, Any]:
        if len(keys) == 1:
            one = {name: x[0] for name, x in batch.items()}

            def objective(model):
                sums = loss(embed(model, one, keys[0]), one)
                return sums["loss"][0], sums

            (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(model)
            return sums, grads
        _, vectors = jax.lax.scan(lambda _, part: (None, embed(model, *part)), None, (batch, keys))

        def of_vectors(vectors):
            sums = loss(_together(vectors), {name: _together(x) for name, x in batch.items()})
            return sums["loss"][0], sums

        (_, sums), wanted = jax.value_and_grad(of_vectors, has_aux=True)(vectors)

        def add(total, part):
            microbatch, key, by_vectors = part
            _, back = jax.vjp(lambda model: embed(model, microbatch, key), model)
            return jax.tree.map(jnp.add, total, back(by_vectors)[0]), None

        zeros = jax.tree.map(jnp.zeros_like, model)
        return sums, jax.lax.scan(add, zeros, (batch, keys, wanted))[0]

    return gradients


def _together(x: jax.Array) -> jax.Array:
    """[M, B, ...] -> [B M, ...]: the devices keep what they have."""
    x = x.swapaxes(0, 1)
    return _merge(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
