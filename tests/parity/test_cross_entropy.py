"""Label smoothing against torch's cross_entropy: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rope.layers.cross_entropy import cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing(smoothing):
    random = np.random.default_rng(0)
    hidden, kernel = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 8, 16), (16, 50)))
    labels, weights = random.integers(0, 50, (3, 8)), random.integers(0, 2, (3, 8)).astype(np.float32)
    run = jax.value_and_grad(lambda h, w: cross_entropy(h, (w, None), labels, weights, smoothing)[0], (0, 1))
    found, gradients = run(jnp.asarray(hidden), jnp.asarray(kernel))

    given = [torch.from_numpy(x).requires_grad_() for x in (hidden, kernel)]
    targets = torch.from_numpy(np.where(weights > 0, labels, -100)).flatten()
    scores = (given[0] @ given[1]).flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(scores, targets, reduction="sum", label_smoothing=smoothing)
    wanted.backward()
    np.testing.assert_allclose(found, wanted.item(), rtol=1e-6)
    for ours, theirs in zip(gradients, given, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)
