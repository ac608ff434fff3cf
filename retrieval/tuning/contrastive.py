"""What pulls like sentences together: the losses of SimCSE and CoSENT over the batch of the whole mesh,
and their gradient in pieces.

SimCSE (Gao, Yao, Chen 2021, arXiv 2104.08821; in Chinese: https://kexue.fm/archives/8348), CoSENT (Su,
https://kexue.fm/archives/8847), SimBERT and RoFormer-Sim (Su, https://kexue.fm/archives/8454), gradient caching (Gao,
Zhang, Han, Callan 2021, arXiv 2101.06983).

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
# (model, microbatch, key) -> vectors [B, S, D], and sums of a microbatch's own, whose `loss` is minimised too if any
Embed = Callable[[Any, Batch, jax.Array | None], tuple[jax.Array, Sums]]
Weights = tuple[float, float]  # of the loss over vectors, and of a microbatch's own
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


def alike(vectors: jax.Array, batch: Batch, scale: float = SCALE) -> Sums:
    """Each of two texts that are alike is to find the other among all of the batch: [B, 2, D].

    Copies of itself or of the other, by batch["texts"], [B, 2], are not among them: RoFormer-Sim's and SimBERT's own
    loss takes them for texts of another meaning.
    """
    b, s, d = vectors.shape
    views, texts = _merge(_normalised(vectors), (b * s, d)), _merge(batch["texts"], (b * s,))
    other = _merge(batch["texts"][:, ::-1], (b * s,))
    scores = scale * _products(views, views)
    rows, columns = (
        jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis, out_sharding=_of(scores)) for axis in (0, 1)
    )
    target, everywhere = rows ^ 1 == columns, replicate(texts)[None]
    copies = (everywhere == texts[:, None]) | (everywhere == other[:, None])
    return cross_entropy(jnp.where((copies & ~target) | (rows == columns), -ITSELF, scores), target)


def distillation(vectors: jax.Array, batch: Batch, scale: float = 100.0) -> Sums:
    """The cosines of all texts of the batch are to be their teacher's: scale times the mean squared difference over the
    whole matrix. vectors [B, 2, D], batch["teacher"] [B, 2, E]."""

    def cosines(vectors: jax.Array) -> jax.Array:
        b, s, d = vectors.shape
        merged = _merge(_normalised(vectors), (b * s, d))
        return _products(merged, merged)

    error = jnp.square(cosines(vectors) - jax.lax.stop_gradient(cosines(batch["teacher"])))
    return {"loss": (scale * jnp.sum(error), jnp.float32(error.size))}


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


def sums_of(embed: Embed, loss: VectorLoss, weights: Weights = (1.0, 1.0)) -> Callable[..., Sums]:
    """(model, microbatch, key) -> the sums of a loss over its vectors, and of what it has of its own."""

    def sums(model: Any, batch: Batch, key: jax.Array | None) -> Sums:
        vectors, own = embed(model, batch, key)
        return _joined(loss(vectors, batch), own, weights)

    return sums


def cached_gradients(embed: Embed, loss: VectorLoss, weights: Weights = (1.0, 1.0)) -> Gradients:
    """Sums and gradient of a loss over the vectors of all microbatches together, and of the mean of what each has of
    its own, in the memory of one. weights: of the two, where there are two.

    Each microbatch is computed twice: for its vectors, and once the loss's gradient by them is known, for the gradient
    by the model.
    """

    def of_one(model: Any, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        def objective(model):
            sums = sums_of(embed, loss, weights)(model, batch, key)
            return sums["loss"][0], sums

        (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(model)
        return sums, grads

    def gradients(model: Any, batch: Batch, keys: jax.Array) -> tuple[Sums, Any]:
        first = jax.tree.map(lambda x: x[0], (batch, keys))
        if len(keys) == 1:
            return of_one(model, *first)
        # Of a microbatch's own sums the weights alone: what else they need is not computed.
        _, (vectors, own) = jax.lax.scan(lambda _, part: (None, _weighed(*embed(model, *part))), None, (batch, keys))

        def of_vectors(vectors):
            sums = loss(_together(vectors), {name: _together(x) for name, x in batch.items()})
            return sums["loss"][0], sums

        (_, sums), by_vectors = jax.value_and_grad(of_vectors, has_aux=True)(vectors)
        share = by_own = jnp.ones(())
        if own:  # their means are added: see _joined
            share, by_own = weights[0] / jnp.maximum(sums["loss"][1], 1), weights[1] / jnp.maximum(own["loss"].sum(), 1)

        def add(total, part):
            microbatch, key, by_vectors = part

            def of_model(model):
                vectors, own = embed(model, microbatch, key)
                return (vectors, own["loss"][0] if own else jnp.zeros(())), own

            _, back, own = jax.vjp(of_model, model, has_aux=True)
            return jax.tree.map(jnp.add, total, (back((share * by_vectors, by_own))[0], own)), None

        zeros = jax.tree.map(jnp.zeros_like, (model, jax.eval_shape(embed, model, *first)[1]))
        (grads, owns), _ = jax.lax.scan(add, zeros, (batch, keys, by_vectors))
        return _joined(sums, owns, weights), grads

    return gradients


def _weighed(vectors: jax.Array, own: Sums) -> tuple[jax.Array, dict[str, jax.Array]]:
    return vectors, {name: weight for name, (_, weight) in own.items()}


def _joined(sums: Sums, own: Sums, weights: Weights) -> Sums:
    """The sums of a loss over vectors; where a microbatch has its own, `loss` is the weighed sum of the two means."""
    if not own:
        return sums
    means = [s / jnp.maximum(w, 1) for s, w in (sums["loss"], own["loss"])]
    named = {
        name if key == "loss" else f"{name}_{key}": x
        for name, part in (("vectors", sums), ("writing", own))
        for key, x in part.items()
    }
    return {"loss": (weights[0] * means[0] + weights[1] * means[1], jnp.ones(())), **named}


def _together(x: jax.Array) -> jax.Array:
    """[M, B, ...] -> [B M, ...]: the devices keep what they have."""
    x = x.swapaxes(0, 1)
    return _merge(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
