"""A position encoding of one's own: other frequencies for rotary (and sinusoidal) positions, of RoFormer and of ViT.

Run it: PYTHONPATH=. python docs/examples/positions.py (or install the project). Then:
rope/positions/angles.py, and scripts.position_report for what an encoding does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh import load_encoder, pretrain_encoder
from rope import rotate
from rope.positions.angles import SCHEDULES


def octaves(t: jax.Array | np.ndarray) -> jax.Array:
    """The frequency of the pair at t = 0, 1/F, 2/F, … of a head:
    wavelengths of 4 to 4 * 2^8 positions, by whole octaves."""
    return jnp.pi / 2 * 2.0 ** -jnp.floor(9 * jnp.asarray(t))


SCHEDULES["octaves"] = octaves  # a value of `theta` from here on, in every model and in the reports


def main() -> None:
    x = np.random.default_rng(0).standard_normal((16, 1, 64)).astype(np.float32)  # [T, N, H]
    near, far = (rotate(x, np.arange(16) + start, theta="octaves")[:, 0] for start in (0, 1000))
    print("scores depend on distances alone:", bool(jnp.allclose(near @ near.T, far @ far.T, atol=1e-3)))
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(-1, 2)
    print("of an image's patches too:", rotate(x, grid, "axial", theta="octaves").shape)

    for theta in ("10000^-t", "octaves"):
        run = pretrain_encoder(theta=theta, steps=4, folder=f"runs/{theta}", batch_size=8, length=32)
        print(f"{theta:9} loss {run.metrics['loss']:.3f}")
    # A run is read where its frequencies have their name: in a program that has added it.
    print(load_encoder("runs/octaves").states(["带老人看病"]).states.shape)


if __name__ == "__main__":
    main()
