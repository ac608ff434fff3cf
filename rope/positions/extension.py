"""Positions beyond the trained length, without training.

For rotary models all but ReRoPE change the frequencies alone (YaRN and LongRoPE the temperature of the scores too);
ReRoPE changes what the scores do with far keys: rope/positions/rerope.py. A table of learned positions is continued by
its own rows.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

import jax
import jax.numpy as jnp

from rope.positions.angles import SINUSOIDAL, frequencies, schedule
from rope.positions.rerope import LongRotation, long_rotation
from rope.positions.rotary import Rotation, rotation
from training.ranges import check_choices, check_number, check_ranges

Method = Literal[
    "none", "linear", "ntk", "dynamic", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky", "hierarchical"
]
BASED = ("ntk", "dynamic", "yarn", "dynamic-yarn")  # of frequencies that have a base
BY_LENGTH = ("dynamic", "dynamic-yarn", "longrope")  # which turn a text by its own length


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
    size: int,
    factor: float | jax.Array,
    trained: int,
    base: float = 10_000.0,
    fast: float = 32,
    slow: float = 1,
) -> jax.Array:
    """[F] of YaRN (Peng et al. 2023, arXiv 2309.00071, section 3.2): pairs that turn more than `fast` times over the
    trained length are kept, those that turn less than `slow` times are interpolated, a ramp between them; of factors
    [...] it is [..., F].

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
    if isinstance(factor, jax.Array):
        factor = jnp.expand_dims(factor, -1)
        ramp, theta = (jnp.expand_dims(x, range(factor.ndim - 1)) for x in (ramp, theta))
    return theta * (1 - ramp) + theta / factor * ramp


def yarn_magnitude(factor: float | jax.Array) -> float | jax.Array:
    """What queries and keys are both lengthened by: 0.1 ln(factor) + 1 (ibid., section 3.4)."""
    if isinstance(factor, jax.Array):
        return 0.1 * jnp.log(jnp.maximum(factor, 1)) + 1
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def times_longer(length: int | jax.Array, trained: int) -> float | jax.Array:
    """Dynamic YaRN's factor (ibid., section 3.3): how many times longer than trained a text is, at least 1. A number of
    one length, [...] of lengths [...]."""
    if not isinstance(length, jax.Array):
        return max(length, trained) / trained
    return jnp.maximum(length, trained).astype(jnp.float32) / trained


def longrope_magnitude(factor: float, trained: int) -> float:
    """What queries and keys are both lengthened by with LongRoPE's factors, sqrt(1 + ln factor / ln trained): in short
    texts too. It is Phi-3's (Abdin et al. 2024, arXiv 2404.14219), as transformers has it."""
    return math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0


def hierarchical(table: jax.Array, length: int, share: float = 0.4) -> jax.Array:
    """A table [P, E] continued to [length, E], up to P squared (https://kexue.fm/archives/7947).

    Position i P + j is share u_i + (1 - share) u_j, where u = (table - share table_0) / (1 - share) leaves the first P
    rows as they are, but for rounding. Raises ValueError for more than P squared, and for a share of 1 or more.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}: it must be from 0 to below 1")
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
    """Rotary: position interpolation (linear), a larger base (ntk; dynamic: as the length needs), YaRN (dynamic-yarn:
    by the length itself), factors of each pair (longrope), ReRoPE or leaky ReRoPE. Learned: hierarchical."""
    factor: float = 1.0
    """linear, ntk, dynamic and yarn: how many times longer rows may be than the trained length, and 1 changes nothing
    (dynamic: but for rows beyond it); leaky: the slope beyond the window is its inverse; longrope: the temperature
    alone."""
    trained: int = 512
    """dynamic, yarn, dynamic-yarn, longrope, rerope and leaky: positions of the rows that the model was trained on."""
    window: int | None = None
    """rerope and leaky: the distance from which on distances no longer count in full; by default half of `trained`."""
    long_factors: tuple[float, ...] = ()
    """longrope: what the frequency of each pair is divided by, in texts longer than trained (arXiv 2402.13753)."""
    short_factors: tuple[float, ...] = ()
    """longrope: the same in others; by default 1."""

    def __post_init__(self):
        check_choices(self)
        check_ranges(self, factor=(1, 1e9), trained=1, window=1)
        for name in ("long_factors", "short_factors"):
            object.__setattr__(self, name, given := tuple(getattr(self, name)))  # JSON has lists
            for value in given:
                check_number(name, value, (1e-9, 1e9), whole=False)
        if self.method == "longrope" and (not self.long_factors or self.trained < 2):
            raise ValueError(
                "extension longrope needs long_factors, one for each pair of a head, and trained of 2 or more"
            )

    def __repr__(self):  # without factors where none are: indexes of version 0.1 know their models by these words
        shown = {x.name: getattr(self, x.name) for x in fields(self)}
        return f"Extension({', '.join(f'{name}={value!r}' for name, value in shown.items() if value != ())})"

    @property
    def span(self) -> int:
        """The window that holds."""
        return max(self.trained // 2, 1) if self.window is None else self.window


def extended_rotation(
    extension: Extension, positions: jax.Array, size: int, length: int | jax.Array, theta: str = SINUSOIDAL
) -> Rotation | LongRotation:
    """The rotation of positions [..., T] of texts of `length` for heads of `size`, for `rope.layers.attention`.

    `length`, for which those of BY_LENGTH ask, is one for all or [..., T], that of each token's own text: then neither
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
    slower, magnitude = slowed(extension, size, length, theta)
    if slower.ndim == 1 and not isinstance(magnitude, jax.Array):
        return rotation(positions, slower, magnitude=magnitude)
    x = jnp.expand_dims(jnp.expand_dims(jnp.asarray(positions, jnp.float32), -1) * slower, -2)
    by = jnp.expand_dims(jnp.asarray(magnitude, jnp.float32), (-1, -2))
    by = jnp.expand_dims(by, range(x.ndim - by.ndim))
    return Rotation(jnp.cos(x) * by, jnp.sin(x) * by)


def slowed(
    extension: Extension, size: int, length: int | jax.Array, theta: str = SINUSOIDAL
) -> tuple[jax.Array, float | jax.Array]:
    """Such a method's frequencies [F], and what queries and keys are lengthened by; of texts of several lengths [...],
    by methods that ask for them, [..., F] and a number or [...]. Raises ValueError as `slowed_rotation`."""
    e, plain = extension, frequencies(size, theta)
    match e.method:
        case "linear":
            return interpolated(plain, e.factor), 1.0
        case "ntk":
            return ntk_aware(size, e.factor, base_of(theta)), 1.0
        case "dynamic":
            return dynamic_ntk(size, e.factor, length, e.trained, base_of(theta)), 1.0
        case "yarn":
            return yarn(size, e.factor, e.trained, base_of(theta)), yarn_magnitude(e.factor)
        case "dynamic-yarn":
            factor = times_longer(length, e.trained)
            return yarn(size, factor, e.trained, base_of(theta)), yarn_magnitude(factor)
        case "longrope":
            return longrope(plain, length, e), longrope_magnitude(e.factor, e.trained)
        case "rerope" | "leaky":
            raise ValueError(f"{e.method} is no matter of frequencies alone")
        case "hierarchical":
            raise ValueError("hierarchical continues a table of learned positions: rotary ones have none")
    return plain, 1.0


def longrope(theta: jax.Array, length: int | jax.Array, extension: Extension) -> jax.Array:
    """[F], or [..., F] of lengths [...]: each pair's frequency by its own factor (Ding et al. 2024, arXiv 2402.13753),
    short or long as the text is. The paper's first positions that stay as they are have no place here, nor in Phi-3's.
    Raises ValueError for factors of another number of pairs."""
    e = extension
    _check_factors(e, 2 * len(theta))
    long = theta / jnp.array(e.long_factors, jnp.float32)
    short = theta / jnp.array(e.short_factors, jnp.float32) if e.short_factors else theta
    if not isinstance(length, jax.Array):
        return long if length > e.trained else short
    long, short = (jnp.expand_dims(x, range(length.ndim)) for x in (long, short))
    return jnp.where(jnp.expand_dims(length, -1) > e.trained, long, short)


def check_fits(extension: Extension, size: int, theta: str) -> None:
    """Raises ValueError where the method wants a base and theta has none, and for LongRoPE's factors of another number
    of pairs than heads of `size` have."""
    if extension.method in BASED:
        base_of(theta)
    _check_factors(extension, size)


def _check_factors(extension: Extension, size: int) -> None:
    for name in ("long_factors", "short_factors"):
        if (given := getattr(extension, name)) and 2 * len(given) != size:
            raise ValueError(f"{name} are {len(given)}: a head of {size} has {size // 2} pairs")


def base_of(theta: str) -> float:
    """10000.0 of 10000^-t. Raises ValueError for frequencies of another kind."""
    schedule(theta)
    base, form, _ = theta.partition("^-t")
    if not form:
        raise ValueError(f"theta is {theta!r}: a larger base needs frequencies like {SINUSOIDAL}")
    return float(base)
