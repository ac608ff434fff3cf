"""Positions beyond the trained length, without training.

For rotary models all but ReRoPE change the frequencies alone (and YaRN the temperature of the scores); ReRoPE changes
what the scores do with far keys: rope/positions/rerope.py. A table of learned positions is continued by its own rows.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from rope.positions.angles import SINUSOIDAL, frequencies, schedule
from rope.positions.rerope import LongRotation, long_rotation
from rope.positions.rotary import Rotation, rotation
from training.ranges import check_choices, check_ranges

Method = Literal["none", "linear", "ntk", "dynamic", "yarn", "rerope", "leaky", "hierarchical"]


def interpolated(theta: jax.Array, factor: float) -> jax.Array:
    """Position interpolation (Chen et al. 2023, arXiv 2306.15595): positions p / factor, for any frequencies."""
    return theta / factor


def ntk_aware(size: int, factor: float, base: float = 10_000.0) -> jax.Array:
    """[F] with a larger base, so that the lowest frequency is interpolated by `factor` and the highest kept
    (bloc97 2023).

    base factor^(d/(d-2)) for heads of size d; of size 2 there is one frequency, and it is kept.
    """
    if size == 2:
        return frequencies(size)
    return frequencies(size, f"{base * factor ** (size / (size - 2)):.17g}^-t")


def dynamic_ntk(size: int, factor: float, length: int | jax.Array, trained: int, base: float = 10_000.0) -> jax.Array:
    """`ntk_aware` by what the length needs: nothing up to the trained length,
    then factor length / trained - (factor - 1).

    [F] of one length; [..., F] of lengths [...], where texts of several lengths lie in a batch.
    """
    if not isinstance(length, jax.Array):
        return ntk_aware(size, factor * max(length, trained) / trained - (factor - 1), base)
    plain = frequencies(size, f"{base:.17g}^-t")
    if size == 2:
        return jnp.broadcast_to(plain, (*length.shape, 1))
    more = factor * jnp.maximum(length, trained).astype(jnp.float32) / trained - (factor - 1)
    # (base more^(d/(d-2)))^-t is base^-t more^(-2i/(d-2)) for the i-th pair.
    slower = jnp.arange(size // 2, dtype=jnp.float32) * (-2 / (size - 2))
    plain, slower = (jnp.expand_dims(x, range(more.ndim)) for x in (plain, slower))
    return plain * jnp.expand_dims(more, -1) ** slower


def yarn(
    size: int, factor: float, trained: int, base: float = 10_000.0, fast: float = 32, slow: float = 1
) -> jax.Array:
    """[F] of YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): pairs that turn more than `fast` times over the
    trained length are kept, those that turn less than `slow` times are interpolated, a ramp between them.

    Goes with `yarn_magnitude` for the rotation.
    Raises ValueError for a base of 1 or less, whose pairs do not slow down.
    """
    if base <= 1:
        raise ValueError(f"the base is {base}: YaRN needs one above 1")

    def pair(turns: float) -> float:  # which turns so many times over the trained length
        return size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), size - 1)
    ramp = jnp.clip((jnp.arange(size // 2) - first) / max(last - first, 1e-3), 0, 1)
    theta = frequencies(size, f"{base:.17g}^-t")
    return theta * (1 - ramp) + theta / factor * ramp


def yarn_magnitude(factor: float) -> float:
    """What queries and keys are both lengthened by: 0.1 ln(factor) + 1 (ibid., section 3.4)."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def hierarchical(table: jax.Array, length: int, share: float = 0.4) -> jax.Array:
    """A table [P, E] continued to [length, E], up to P squared (https://kexue.fm/archives/7947).

    Position i P + j is share u_i + (1 - share) u_j, where u = (table - share table_0) / (1 - share) leaves the first P
    rows as they are. Raises ValueError for more than P squared.
    """
    rows = len(table)
    if length > rows**2:
        raise ValueError(f"a table of {rows} positions can be continued to {rows**2}, not to {length}")
    basis = (table - share * table[:1]) / (1 - share)
    places = jnp.arange(length)
    return share * basis[places // rows] + (1 - share) * basis[places % rows]


@dataclass(frozen=True, kw_only=True)
class Extension:
    """How a model trained on rows of `trained` positions reads longer ones."""

    method: Method = "none"
    """Rotary: position interpolation (linear), a larger base (ntk; dynamic: as the length needs), YaRN, ReRoPE or leaky
    ReRoPE. Learned: hierarchical."""
    factor: float = 1.0
    """linear, ntk, dynamic and yarn: how many times longer rows may be than the trained length, and 1 changes nothing
    (dynamic: but for rows beyond it); leaky: the slope beyond the window is its inverse."""
    trained: int = 512
    """dynamic, yarn, rerope and leaky: positions of the rows that the model was trained on."""
    window: int | None = None
    """rerope and leaky: the distance from which on distances no longer count in full; by default half of `trained`."""

    def __post_init__(self):
        check_choices(self)
        check_ranges(self, factor=(1, 1e9), trained=1, window=1)

    @property
    def span(self) -> int:
        """The window that holds."""
        return max(self.trained // 2, 1) if self.window is None else self.window


def extended_rotation(
    extension: Extension, positions: jax.Array, size: int, length: int | jax.Array, theta: str = SINUSOIDAL
) -> Rotation | LongRotation:
    """The rotation of positions [..., T] of texts of `length` for heads of `size`, for `rope.layers.attention`.

    `length`, which `dynamic` alone asks for, is one for all or [..., T], that of each token's own text: then neither
    padding nor what else lies in its row changes what a text becomes (rope.layers.masks.segment_lengths).
    Raises ValueError where the method wants a base and theta has none, and for `hierarchical`.
    """
    e = extension
    if e.method in ("rerope", "leaky"):
        return long_rotation(positions, frequencies(size, theta), e.span, e.factor if e.method == "leaky" else None)
    return slowed_rotation(extension, positions, size, length, theta)


def slowed_rotation(
    extension: Extension, positions: jax.Array, size: int, length: int | jax.Array, theta: str = SINUSOIDAL
) -> Rotation:
    """The same of the methods that are a matter of frequencies alone. Raises ValueError for the others too."""
    e, plain = extension, frequencies(size, theta)
    match e.method:
        case "linear":
            return rotation(positions, interpolated(plain, e.factor))
        case "ntk":
            return rotation(positions, ntk_aware(size, e.factor, base_of(theta)))
        case "dynamic":
            slower = dynamic_ntk(size, e.factor, length, e.trained, base_of(theta))
            if slower.ndim == 1:
                return rotation(positions, slower)
            x = jnp.expand_dims(jnp.expand_dims(jnp.asarray(positions, jnp.float32), -1) * slower, -2)
            return Rotation(jnp.cos(x), jnp.sin(x))
        case "yarn":
            return rotation(
                positions, yarn(size, e.factor, e.trained, base_of(theta)), magnitude=yarn_magnitude(e.factor)
            )
        case "rerope" | "leaky":
            raise ValueError(f"{e.method} is no matter of frequencies alone")
        case "hierarchical":
            raise ValueError("hierarchical continues a table of learned positions: rotary ones have none")
    return rotation(positions, plain)


def base_of(theta: str) -> float:
    """10000.0 of 10000^-t. Raises ValueError for frequencies of another kind."""
    schedule(theta)
    base, form, _ = theta.partition("^-t")
    if not form:
        raise ValueError(f"theta is {theta!r}: a larger base needs frequencies like {SINUSOIDAL}")
    return float(base)
