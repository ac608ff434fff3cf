"""A step against an adversary: gradients at a model that is moved to where its loss grows (Miyato et al. 2017,
arXiv 1605.07725: fast gradient method), as it was applied to embeddings."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from training.ranges import check_ranges


@dataclass(frozen=True)
class Adversary:
    """Moves one array of a model along its gradient, by `epsilon` in the Euclidean norm of all of it."""

    parameter: str  # the path in the model, such as embeddings/word
    epsilon: float

    def __post_init__(self):
        check_ranges(self, epsilon=0)

    def moved(self, model: Any, gradients: Any) -> Any:
        """The model, moved. Raises ValueError where it has no such array."""
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(model)]
        if self.parameter not in names:
            raise ValueError(f"adversary of {self.parameter!r}: the model has {', '.join(names)}")

        def move(path: tuple, x: jax.Array, gradient: jax.Array) -> jax.Array:
            if jax.tree_util.keystr(path, simple=True, separator="/") != self.parameter:
                return x
            return x + (self.epsilon / jnp.maximum(optax.tree.norm(gradient), 1e-12)) * gradient.astype(x.dtype)

        return jax.tree.map_with_path(move, model, gradients)
