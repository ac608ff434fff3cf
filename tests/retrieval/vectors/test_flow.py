import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retrieval.vectors.flow import FlowConfig, fit_flow, flowed, init, inverse, loss, transform
from training.files.errors import DataError


def random_flow(width: int = 11, levels: int = 3):
    flow = init(FlowConfig(levels=levels, depth=2, width=7), width, jax.random.key(0))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.3 * random.standard_normal(x.shape).astype(np.float32), flow)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("width", [8, 11])
def test_the_inverse_undoes_it_and_the_determinant_is_the_jacobians(levels: int, width: int) -> None:
    flow = random_flow(width, levels)
    x = jax.random.normal(jax.random.key(1), (5, width))
    z, logarithm = jax.jit(transform)(flow, x)
    np.testing.assert_allclose(jax.jit(inverse)(flow, z), x, atol=2e-4)
    jacobian = jax.jit(jax.jacobian(lambda row: transform(flow, row[None])[0][0]))(x[0])
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], logarithm, atol=1e-4)


def test_a_correlated_law_becomes_nearly_standard_normal() -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((4000, 8)) @ random.standard_normal((8, 8)) + 3).astype(np.float32)
    config = FlowConfig(levels=1, depth=4, epochs=12, learning_rate=1e-3)
    flow = fit_flow(x, config)
    z = flowed(flow)(x)
    before = np.abs(np.corrcoef(x.T) - np.eye(8)).mean()
    after = np.abs(np.corrcoef(z.T) - np.eye(8)).mean()
    assert after < before / 3, (before, after)
    np.testing.assert_allclose(z.std(0), 1, atol=0.15)


def test_the_first_batch_is_normalised() -> None:
    x = 5 + 2 * np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    flow = fit_flow(x, FlowConfig(batch_size=64, learning_rate=0))
    nats, count = loss(flow, {"x": jnp.asarray(x)})["loss"]
    z = transform(flow, jnp.asarray(x))[0]
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)
    assert float(nats / count) == pytest.approx(0.5 * (1 + np.log(2 * np.pi)) + np.log(x.std(0)).mean(), abs=1e-3)


def test_what_cannot_be_fitted_is_one_line() -> None:
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    with pytest.raises(DataError, match="8 or more"):
        fit_flow(x[:, :7], FlowConfig())
    with pytest.raises(DataError, match="two or more"):
        fit_flow(x[:1], FlowConfig())
    with pytest.raises(DataError, match="not finite at update"):
        fit_flow(x, FlowConfig(learning_rate=1e6, epochs=30))
    x[7, 1] = np.inf
    with pytest.raises(DataError, match="row 8 has NaN or infinity"):
        fit_flow(x, FlowConfig())
