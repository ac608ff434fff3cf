"""How a model is computed, whatever it computes."""

from dataclasses import dataclass

from rope.layers.kernels import Implementation
from rope.layers.primitives import Remat
from training.partition import Dtype


@dataclass(frozen=True, kw_only=True)
class Computation:
    dtype: Dtype = "float32"
    """Of the computation; bfloat16 on TPUs and recent GPUs. Parameters stay float32."""
    remat: Remat = "auto"
    """What the backward pass recomputes to save memory: nothing, all but products (dots), or whole layers (full); auto
    is dots on a TPU, else none."""
    attention: Implementation = "auto"
    """What computes attention: auto is the flash kernel on a TPU where it is legal, else XLA."""
