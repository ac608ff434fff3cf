"""AdamW and Adafactor with the schedules of T5 and T5-PEGASUS, as optax transformations.

Layers are stacked along a leading axis under the attribute name `blocks`; rules that look at one matrix (Adafactor's
clipping and parameter scale) look at one layer of the stack, so a stacked model trains as the same model unstacked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from training.partition import weights
from training.ranges import check_ranges

STACK = "blocks"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """adamw: Loshchilov & Hutter 2019; adafactor: Shazeer & Stern 2018, without momentum, as T5 uses it."""
    learning_rate: float = 1e-4
    """Peak of the schedule; for rsqrt the value is learning_rate * sqrt(warmup / step) after the warm-up."""
    schedule: Literal["constant", "linear", "cosine", "rsqrt"] = "constant"
    """What follows the linear warm-up: T5-PEGASUS stays constant, T5 decays as 1/sqrt(step)."""
    warmup: int = 10_000
    """Steps of linear warm-up from 0."""
    weight_decay: float = 0.01
    """Decoupled decay of every parameter but norm scales and biases."""
    beta1: float = 0.9
    """AdamW: decay of the first moment."""
    beta2: float = 0.999
    """AdamW: decay of the second moment."""
    epsilon: float = 1e-6
    """AdamW: added to the square root of the second moment."""
    clip: float = 1.0
    """Largest global norm of the gradient; 0 for no clipping."""

    def __post_init__(self):
        check_ranges(self, learning_rate=0, warmup=0, weight_decay=0, beta1=(0, 1), beta2=(0, 1), epsilon=0, clip=0)


def learning_rate(config: OptimizerConfig, steps: int) -> Callable[[jax.Array], jax.Array]:
    """The schedule: step (0-based) -> learning rate. `steps` is where linear and cosine reach 0.

    Not optax's: a line from 0 to the peak is there the peak less a difference of it, whose first rate of 10,000 steps
    is off by 5e-5 of itself, and the last of a million by 5 %; here a line's rates are exact to float32.
    """
    peak, warmup = config.learning_rate, max(config.warmup, 1)

    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32) + 1
        left = jnp.clip((steps - step) / max(steps - warmup, 1), 0, 1)
        after: dict[str, Callable[[], jax.Array | float]] = {
            "constant": lambda: 1.0,
            "linear": lambda: left,
            "cosine": lambda: 0.5 - 0.5 * jnp.cos(jnp.pi * left),
            "rsqrt": lambda: jnp.sqrt(warmup / step),
        }
        return peak * jnp.where(step < warmup, step / warmup, after[config.schedule]())

    return rate


def _layer_rms(path: tuple, x: jax.Array) -> jax.Array:
    names = jax.tree_util.keystr(path, simple=True, separator="/").lower().split("/")
    axes = tuple(range(1, x.ndim)) if STACK in names else None
    return jnp.sqrt(jnp.mean(jnp.square(x), axes, keepdims=True))


def _clip_by_layer_rms(threshold: float) -> optax.GradientTransformation:
    def update(updates, params=None):
        clip = lambda path, u: u / jnp.maximum(1.0, _layer_rms(path, u) / threshold)  # noqa: E731
        return jax.tree.map_with_path(clip, updates)

    return optax.stateless(update)


def _scale_by_layer_rms(least: float) -> optax.GradientTransformation:
    def update(updates, params):
        scale = lambda path, u, p: u * jnp.maximum(_layer_rms(path, p), least)  # noqa: E731
        return jax.tree.map_with_path(scale, updates, params)

    return optax.stateless(update)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optax chain: clipping, then the optimizer with its schedule and decay, of weights alone: by T5-PEGASUS's rule
    norm scales and biases are left as they are."""
    rate = learning_rate(config, steps)
    if config.optimizer == "adamw":
        parts = [
            optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
            optax.add_decayed_weights(config.weight_decay, weights),
        ]
    else:  # Adafactor's three rules (section 7 of the paper); decay is relative to the learning rate, as for AdamW
        parts = [
            optax.scale_by_factored_rms(),
            _clip_by_layer_rms(1.0),
            _scale_by_layer_rms(1e-3),
            optax.add_decayed_weights(config.weight_decay, weights),
        ]
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    return optax.chain(*clip, *parts, optax.scale_by_learning_rate(rate))
