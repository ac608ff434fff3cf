"""The loss in chunks against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.layers import cross_entropy as module
from rope.layers.cross_entropy import cross_entropy

HIDDEN, VOCABULARY = (3, 12, 16), 40


def plain_sums(hidden, head, labels, weights, smoothing, z_loss):
    """The logits whole, the labels as distributions."""
    kernel, bias = head
    scores = hidden @ kernel + (0 if bias is None else bias[None, None])
    log_p = jax.nn.log_softmax(scores)
    onehot = jax.nn.one_hot(labels, VOCABULARY)
    smooth = (1 - smoothing) * onehot + smoothing / VOCABULARY
    objective = -(smooth * log_p).sum(-1) + z_loss * jax.nn.logsumexp(scores, -1) ** 2
    correct = scores.argmax(-1) == labels
    return tuple((x * weights).sum() for x in (objective, -(onehot * log_p).sum(-1), correct))


def formula(hidden, kernel, labels, weights, smoothing, z_loss):
    """The objective and its gradients in hidden and kernel, in float64 and by the formula: with p the softmax, q the
    smoothed label and z log(Z), the logits' gradient is p - q + 2 z_loss z p."""
    x, w = np.float64(hidden), np.float64(kernel)
    logits = x @ w
    z = np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(logits - z)
    q = (1 - smoothing) * np.eye(VOCABULARY)[labels] + smoothing / VOCABULARY
    objective = (q * (z - logits)).sum(-1) + z_loss * z[..., 0] ** 2
    slope = (p - q + 2 * z_loss * z * p) * weights[..., None]
    return (objective * weights).sum(), slope @ w.T, np.einsum("btd,btv->dv", x, slope)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.3])
def test_smoothing_and_z_loss_are_the_formula(smoothing, z_loss):
    random = np.random.default_rng(2)
    hidden, kernel = (random.standard_normal(shape).astype(np.float32) for shape in (HIDDEN, (HIDDEN[-1], VOCABULARY)))
    labels = random.integers(0, VOCABULARY, HIDDEN[:2])
    weights = random.integers(0, 2, HIDDEN[:2]).astype(np.float32)
    run = jax.value_and_grad(lambda h, w: cross_entropy(h, (w, None), labels, weights, smoothing, z_loss)[0], (0, 1))
    objective, gradients = run(jnp.asarray(hidden), jnp.asarray(kernel))
    wanted, *slopes = formula(hidden, kernel, labels, weights, smoothing, z_loss)
    np.testing.assert_allclose(objective, wanted, rtol=1e-6)
    for found, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("elements", [2**25, 200])  # at once; 200 make it several chunks
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 1e-2)])
def test_loss_is_the_plain_one_in_any_chunks(monkeypatch, elements, biased, smoothing, z_loss):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    random = np.random.default_rng(1)
    shapes = HIDDEN, (HIDDEN[-1], VOCABULARY), (VOCABULARY,)
    hidden, kernel, bias = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)
    head = kernel, bias if biased else None
    labels = random.integers(0, VOCABULARY, HIDDEN[:2])
    weights = jnp.asarray(random.integers(0, 2, HIDDEN[:2]), jnp.float32)
    assert module._chunks(hidden, head) == (1 if elements == 2**25 else 12)

    def values_and_gradients(sums):
        call = lambda h, w: sums(h, w, labels, weights, smoothing, z_loss)  # noqa: E731
        return call(hidden, head), jax.value_and_grad(lambda h, w: 2 * call(h, w)[0], argnums=(0, 1))(hidden, head)

    found, wanted = jax.jit(lambda: [values_and_gradients(sums) for sums in (cross_entropy, plain_sums)])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
