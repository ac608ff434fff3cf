"""A critic of one's own: what it maximises, and what keeps it from being steep, set beside the exact distance.

Run it: PYTHONPATH=. python docs/examples/critic.py (or install the project). Then: gan/critic.py for what a critic is,
gan/objectives.py and gan/certified.py for the others.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gan import critic_w1, w1
from gan.critic import Critic, Shape, critic_of, joined, kr
from gan.objectives import CRITICS


def pairs(shape: Shape, weight: float = 10.0) -> Critic:
    """WGAN with a penalty where |f(x) - f(y)| is above |x - y|, for random pairs of points:
    no gradient of a gradient."""

    def loss(f, x, y, key):
        points = joined(x, y)  # [2n, D]
        values, others = f(points), jax.random.permutation(key, len(points))
        apart = jnp.sqrt(jnp.sum((points - points[others]) ** 2, 1) + 1e-12)
        excess = jax.nn.relu(jnp.abs(values - values[others]) - apart)
        found, penalty = kr(values), jnp.mean(excess**2)
        return weight * penalty - found, {"kr": found, "penalty": penalty}  # what is minimised, and what is told

    return critic_of(shape, loss, constraint="penalised")  # what tables call it


CRITICS["pairs"] = pairs  # a name like any other in this process; for scripts.wgan add it in gan/objectives.py


def main() -> None:
    y = np.random.default_rng(0).standard_normal((256, 2))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    x = 2 * y  # a circle around a circle
    print(f"exactly {w1(x, y):.3f}")
    # Few random pairs lie straight across the gap, where f is steep: `pairs` says half too much. `lp` looks between the
    # points. (Before f is steep anywhere, at 200 steps, neither penalty is at work, and both say the same.)
    for critic in ("pairs", "lp"):
        found = critic_w1(x, y, critic, steps=600, batch=64, seeds=1, hidden=(32, 32))
        print(f"{critic:6} {found.w1:.3f}, steepest {found.steepest.max():.2f}")


if __name__ == "__main__":
    main()
