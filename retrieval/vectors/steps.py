"""What is done to vectors after the pooling, of NumPy's and jax's arrays alike: Dense and Normalize, as
sentence-transformers calls them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from retrieval.vectors.arrays import unit
from training.files.weights import fingerprint

Activation = Literal["Identity", "Tanh", "ReLU"]
Array = Any  # of NumPy or jax, float32 [n, D]
_AFTER: dict[Activation, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": lambda x: x.__array_namespace__().tanh(x),
    "ReLU": lambda x: x.__array_namespace__().maximum(x, 0),
}


@dataclass(frozen=True)
class Dense:
    """x -> activation(x kernel + bias), of rows [n, D]: [n, K]."""

    kernel: np.ndarray  # float32 [D, K]
    bias: np.ndarray  # float32 [K]
    activation: Activation = "Identity"

    def __call__(self, vectors: Array) -> Array:
        return _AFTER[self.activation](vectors @ self.kernel + self.bias[None])

    @property
    def fingerprint(self) -> str:
        return f"{fingerprint((self.kernel, self.bias))} {self.activation}"

    @property
    def told(self) -> str:
        return f"Dense to {self.width(0)}"

    def width(self, before: int) -> int:
        """Of its vectors, made of those of another width."""
        return self.kernel.shape[1]


@dataclass(frozen=True)
class Normalize:
    """Rows [n, D] of length 1; one of zeros stays so."""

    fingerprint = "unit"
    told = "length 1"

    def __call__(self, vectors: Array) -> Array:
        return unit(vectors)

    def width(self, before: int) -> int:
        return before


Step = Dense | Normalize


def after(steps: Iterable[Step], vectors: Array) -> Array:
    """Vectors [n, D] with the steps done: [n, K]."""
    for step in steps:
        vectors = step(vectors)
    return vectors
