"""Certified layers against orthogonium's, of the same weights: outputs to 1e-5 where the construction is the same,
and the same bound where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from orthogonium.layers.conv.AOC.fast_block_ortho_conv import block_orth
from orthogonium.layers.conv.AOC.ortho_conv import AdaptiveOrthoConv2d
from orthogonium.layers.conv.AOL.aol import AOLConv2D
from orthogonium.layers.conv.SLL.sll_layer import SDPBasedLipschitzDense, SDPBasedLipschitzResBlock

from gan import lipschitz
from gan.certified import FROM_ANYWHERE
from gan.networks import convolve, strided


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def theirs(layer: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """[B, height, width, in] -> [B, height, width, out]."""
    with torch.no_grad():
        return layer(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def as_ours(kernel: torch.Tensor) -> jax.Array:
    return jnp.asarray(kernel.detach().permute(2, 3, 1, 0).numpy())


def close(found, wanted) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("inputs", "outputs", "side"), [(3, 8, 3), (8, 3, 3), (5, 5, 5), (4, 6, 1)])
def test_almost_orthogonal(inputs, outputs, side):
    layer = AOLConv2D(inputs, outputs, side, padding=side // 2, bias=False)
    # Theirs begins orthogonal, where scaling inputs or outputs is one.
    layer.parametrizations.weight.original.data = torch.from_numpy(draw(outputs, inputs, side, side))
    kernel = as_ours(layer.parametrizations.weight.original)
    x = draw(2, 7, 5, inputs)
    close(convolve(x, lipschitz.almost_orthogonal(kernel)), theirs(layer, x))


def test_residual():
    layer = SDPBasedLipschitzResBlock(6, 1, kernel_size=3)
    scale = as_ours(layer.kernel), as_ours(layer.parametrizations.kernel.original)
    # Theirs scales kernels before the activation and so the bias is of scaled units: T^-1/2 relu(z) = relu(T^-1/2 z).
    roots = jnp.sqrt(lipschitz.row_sums(scale[1]))
    close(scale[0] * roots[None, None, None], scale[1])
    bias = jnp.asarray(layer.bias.detach().numpy().reshape(-1)) * roots
    x = draw(2, 7, 5, 6)
    close(lipschitz.residual(x, scale[1], bias, jnp.zeros(6)), theirs(layer, x))


def test_residual_of_points():
    """With its learned weights, which stand as logarithms."""
    layer = SDPBasedLipschitzDense(6, 6, 6)
    x = draw(4, 6)
    found = lipschitz.residual(
        x[:, None, None],
        jnp.asarray(layer.weight.detach().numpy().T)[None, None],
        jnp.asarray(layer.bias.detach().numpy()[0]),
        jnp.asarray(layer.q.detach().numpy()),
    )
    with torch.no_grad():
        close(found[:, 0, 0], layer(torch.from_numpy(x)).numpy())


def test_orthogonal():
    """The 2 x 2 kernel of two projectors; both maps have the bound, and reach it."""
    turns = np.asarray(FROM_ANYWHERE(jnp.asarray(draw(2, 8, 4))))
    projectors = torch.from_numpy(turns @ turns.swapaxes(1, 2))[:, None, None]
    wanted = block_orth(projectors[0], projectors[1])[0]
    close(lipschitz.orthogonal(jnp.eye(8), jnp.asarray(turns)), as_ours(wanted.transpose(0, 1)))
    layer = AdaptiveOrthoConv2d(3, 8, 4, stride=2, padding=1, padding_mode="zeros", bias=False).eval()
    first = FROM_ANYWHERE(jnp.asarray(draw(12, 8)))
    ours = strided(lipschitz.orthogonal(first, jnp.asarray(turns)))
    eye = np.eye(8 * 8 * 3, dtype=np.float32).reshape(-1, 8, 8, 3)
    for matrix in (theirs(layer, eye), np.asarray(convolve(eye, ours))):
        assert np.linalg.svd(matrix.reshape(len(eye), -1), compute_uv=False)[0] == pytest.approx(1, abs=1e-3)
