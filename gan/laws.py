"""Pairs of laws (P, Q) of points in R^D and their Wasserstein-1 distance, with the Euclidean ground cost.

`potential` is an optimal critic f, high on P and low on Q, and `gradient` its gradient at points of P: with them a
critic's direction can be scored, not only its value.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from gan.files import read_points
from gan.metric import FLOOR, lengths
from gan.transport import exact_w1
from training.files.errors import DataError

Pair = tuple[jax.Array, jax.Array]  # x [n, D] of P and y [n, D] of Q


@dataclass(frozen=True)
class Law:
    name: str
    dimensions: int
    sample: Callable[[jax.Array, int], Pair]  # (key, n) -> independent points
    w1: float | None  # of the whole laws; None: unknown
    gradient: Callable[[jax.Array], jax.Array] | None = None  # [n, D] -> [n, D], of length 1, or 0 where there is none
    potential: Callable[[jax.Array], jax.Array] | None = None  # [n, D] -> [n]
    image: tuple[int, int, int] | None = None  # (height, width, channels), where points are images


def _two(draw: Callable[[jax.Array, int], jax.Array], key: jax.Array, count: int) -> Pair:
    first, second = jax.random.split(key)
    return draw(first, count), draw(second, count)


def _least(**settings: tuple[float, float]) -> None:
    for name, (value, least) in settings.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}: it must be {least:g} or more")


def shift(dimensions: int, distance: float = 1.0) -> Law:
    """A standard normal law and the same moved along (1, ..., 1): any law moved by m is |m| away."""
    _least(dimensions=(dimensions, 1), distance=(distance, 0))
    direction = jnp.full((dimensions,), dimensions**-0.5)

    def sample(key: jax.Array, count: int) -> Pair:
        x, y = _two(lambda k, n: jax.random.normal(k, (n, dimensions)), key, count)
        return x + distance * direction[None], y

    return Law(
        f"shift {distance:g}",
        dimensions,
        sample,
        distance,
        gradient=lambda x: jnp.broadcast_to(direction[None], x.shape),
        potential=lambda x: jnp.matmul(x, direction, precision=jax.lax.Precision.HIGHEST),
    )


def scale(dimensions: int, large: float = 2.0, small: float = 1.0) -> Law:
    """N(0, large^2 I) and N(0, small^2 I): mass moves along rays, by (large - small) E|z| in the mean."""
    _least(dimensions=(dimensions, 1), large=(large, small), small=(small, 0))
    mean = math.sqrt(2) * math.exp(math.lgamma((dimensions + 1) / 2) - math.lgamma(dimensions / 2))

    def sample(key: jax.Array, count: int) -> Pair:
        x, y = _two(lambda k, n: jax.random.normal(k, (n, dimensions)), key, count)
        return large * x, small * y

    return Law(
        f"scale {large:g}:{small:g}", dimensions, sample, (large - small) * mean, gradient=outward, potential=lengths
    )


def shells(dimensions: int, outer: float = 2.0, inner: float = 1.0) -> Law:
    """Two spheres around one centre; inner 0 is a point (Anil, Lucas, Grosse 2019, arXiv 1811.05381)."""
    _least(dimensions=(dimensions, 1), outer=(outer, inner), inner=(inner, 0))

    def sample(key: jax.Array, count: int) -> Pair:
        x, y = _two(lambda k, n: jax.random.normal(k, (n, dimensions)), key, count)
        return outer * outward(x), inner * outward(y)

    return Law(f"shells {outer:g}:{inner:g}", dimensions, sample, outer - inner, gradient=outward, potential=lengths)


def outward(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def mixture_on_a_line() -> Law:
    """Two normal laws of deviation 1/2 around -2 and 2 against one of deviation 1 around 0: on a line W1 is the area
    between the distribution functions, and a potential's slope is the sign of their difference."""

    def below(z, functions=jnp):  # F_Q - F_P
        cdf = jax.scipy.stats.norm.cdf if functions is jnp else norm.cdf
        return cdf(z) - (cdf(2 * (z + 2)) + cdf(2 * (z - 2))) / 2

    def sample(key: jax.Array, count: int) -> Pair:
        side, first, second = jax.random.split(key, 3)
        centres = jnp.where(jax.random.bernoulli(side, shape=(count, 1)), 2.0, -2.0)
        return centres + 0.5 * jax.random.normal(first, (count, 1)), jax.random.normal(second, (count, 1))

    area = quad(lambda z: abs(below(z, np)), -12, 12, points=(-2, 0, 2), limit=200)[0]
    return Law("mixture", 1, sample, area, gradient=lambda x: jnp.sign(below(x)))


def with_null_dimensions(law: Law, dimensions: int) -> Law:
    """The law with further dimensions in which P and Q are the same normal law:
    neither distance nor gradient changes."""
    if (null := dimensions - law.dimensions) < 0:
        raise ValueError(f"null:{dimensions}: {law.name} alone has {law.dimensions} dimensions")

    def sample(key: jax.Array, count: int) -> Pair:
        first, second = jax.random.split(key)
        (x, y), noise = law.sample(first, count), _two(lambda k, n: jax.random.normal(k, (n, null)), second, count)
        return jnp.concatenate([x, noise[0]], 1), jnp.concatenate([y, noise[1]], 1)

    def padded(gradient: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        return jnp.pad(gradient(x[:, : law.dimensions]), ((0, 0), (0, null)))

    gradient = partial(padded, law.gradient) if law.gradient else None
    return Law(f"{law.name} + {null} null", dimensions, sample, law.w1, gradient)


SIDE = 2.5  # half a side of MinFunnel's box


class Funnels(NamedTuple):
    centres: jax.Array  # [N, D]
    offsets: jax.Array  # [N]


def funnels_of(dimensions: int, count: int, seed: int | None = None) -> Funnels:
    """The published benchmark's funnels, or with a seed others of the same law.
    Raises ValueError for a size that it lacks."""
    if seed is not None:
        rng = np.random.default_rng([seed, dimensions, count])
        centres, offsets = rng.uniform(-SIDE, SIDE, (count, dimensions)), rng.normal(0, 0.1, count)
    else:
        with np.load(Path(__file__).parent / "benchmark" / "funnels.npz") as published:
            if (name := f"{dimensions}-{count}") not in published:
                sizes = ", ".join(published)
                raise ValueError(f"the published funnels have the sizes {sizes}, not {name}: give a seed for others")
            centres, offsets = published[name][:, :-1], published[name][:, -1]
    return Funnels(jnp.asarray(centres, jnp.float32), jnp.asarray(offsets, jnp.float32))


def min_funnel(dimensions: int, count: int, power: float = 8, seed: int | None = None, samples: int = 1 << 17) -> Law:
    """The benchmark of Korotin, Kolesov, Burnaev 2022 (arXiv 2206.07767, section 4).

    u(x) = min_n |x - a_n| + b_n. Q is uniform on a box; P moves each of its points along the ray of u that it lies on,
    towards the ray's lower end, by t -> t^power. Such a plan is optimal, and -u an optimal critic. W1 is the plan's
    mean length, by so many samples: its rows have heavy tails, and 2^17 of them a standard error of 0.3 %.
    """
    a = funnels_of(dimensions, count, seed)

    def draw(key: jax.Array, count: int) -> jax.Array:
        return jax.random.uniform(key, (count, dimensions), minval=-SIDE, maxval=SIDE)

    def sample(key: jax.Array, count: int) -> Pair:
        first, second = jax.random.split(key)
        return moved(draw(first, count), a, power), draw(second, count)

    @jax.jit
    def length(key: jax.Array) -> jax.Array:
        y = draw(key, 1 << 12)
        return jnp.mean(lengths(y - moved(y, a, power)))

    keys = jax.random.split(jax.random.key(seed or 0), max(samples >> 12, 1))
    return Law(
        f"funnels {count}",
        dimensions,
        sample,
        float(np.mean([length(key) for key in keys])),
        gradient=partial(_downhill, a=a),
        potential=lambda x: -height(x, a),
    )


def _heights(x: jax.Array, a: Funnels) -> jax.Array:
    """[n, D] -> [n, N]: |x - a_n| + b_n."""
    squares = jnp.sum(x * x, 1)[:, None] + jnp.sum(a.centres**2, 1)[None]
    inner = jnp.matmul(x, a.centres.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sqrt(jnp.maximum(squares - 2 * inner, FLOOR)) + a.offsets[None]


def height(x: jax.Array, a: Funnels) -> jax.Array:
    """u [n]: the lowest funnel's, its distance from the difference: half of P's points are within 1e-3 of a centre."""
    nearest = jnp.argmin(_heights(x, a), 1)
    return jnp.linalg.norm(x - a.centres[nearest], axis=1) + a.offsets[nearest]


def _downhill(x: jax.Array, a: Funnels) -> jax.Array:
    return -outward(x - a.centres[jnp.argmin(_heights(x, a), 1)])


def moved(x: jax.Array, a: Funnels, power: float) -> jax.Array:
    """Points [n, D] of the box, each at the share t of its ray of u, moved to the share t^power of it.

    The ray goes from the funnel's centre through the point until it leaves the box or meets another funnel: the point
    at distance r from the centre with r = |centre + r v - a_n| + b_n - b.
    """
    heights = _heights(x, a)
    nearest = jnp.argmin(heights, 1)
    low = a.centres[nearest]
    v = outward(x - low)
    box = jnp.min(jnp.abs((jnp.sign(v) * SIDE - x) / jnp.where(v == 0, FLOOR, v)), 1)
    apart = heights - a.offsets[None]  # |x - a_n|
    rise = height(x, a)[:, None] - a.offsets[None]  # u(x) - b_n
    along = jnp.sum(x * v, 1)[:, None] - jnp.matmul(v, a.centres.T, precision=jax.lax.Precision.HIGHEST)
    meets = 0.5 * (apart**2 - rise**2) / (rise - along)
    legal = (meets > 0) & (meets > -rise) & (jnp.arange(len(a.offsets))[None] != nearest[:, None])
    r = jnp.minimum(box, jnp.min(jnp.where(legal, meets, jnp.inf), 1))
    up = x + v * r[:, None]
    share = lengths(x - low) / lengths(up - low)
    return low + (share**power)[:, None] * (up - low)


EXACT = 5000  # points of each set beyond which no exact distance is tried: a minute


def clouds(name: str, x: np.ndarray, y: np.ndarray) -> Law:
    """Two sets of points, [n, D] and [m, D], drawn from with replacement."""
    p, q = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    def sample(key: jax.Array, count: int) -> Pair:
        first, second = jax.random.split(key)
        return p[jax.random.randint(first, (count,), 0, len(p))], q[jax.random.randint(second, (count,), 0, len(q))]

    return Law(name, x.shape[1], sample, None)


def of_files(first: str, second: str) -> Law:
    """The points of two files, as `read_points` has them: exactly so far apart on a line, and of not too many points
    elsewhere."""
    x, y = read_points(first), read_points(second)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"{first} has {x.shape[1]} dimensions, {second} {y.shape[1]}: they must have as many")
    w1 = exact_w1(x, y) if x.shape[1] == 1 or max(len(x), len(y)) <= EXACT else None
    return replace(clouds(f"{Path(first).stem} against {Path(second).stem}", x, y), w1=w1)


def toy(name: str) -> Law:
    """A law of the plane that GANs are drawn with, against itself with standard normal noise (Gulrajani et al. 2017,
    arXiv 1704.00028, figure 1)."""
    if name not in TOYS:
        raise ValueError(f"law {name!r}: it must be one of {', '.join(TOYS)}")
    around = np.stack([np.cos(a := np.arange(8) * np.pi / 4), np.sin(a)], 1) * math.sqrt(2)
    lattice = np.stack(np.meshgrid(*2 * [np.arange(-2, 3)]), -1).reshape(-1, 2) / math.sqrt(2)
    centres = {"8gaussians": around, "25gaussians": lattice}

    def draw(key: jax.Array, count: int) -> jax.Array:
        first, second = jax.random.split(key)
        if name in centres:
            points = jnp.asarray(centres[name], jnp.float32)[jax.random.randint(first, (count,), 0, len(centres[name]))]
            return points + 0.02 * jax.random.normal(second, (count, 2))
        turn = 1.5 * jnp.pi * (1 + 2 * jax.random.uniform(first, (count,)))
        return (
            jnp.stack([turn * jnp.cos(turn), turn * jnp.sin(turn)], 1) + 0.25 * jax.random.normal(second, (count, 2))
        ) / 7.5

    def sample(key: jax.Array, count: int) -> Pair:
        first, second = jax.random.split(key)
        x, y = _two(draw, first, count)
        return x, y + jax.random.normal(second, y.shape)

    return Law(name, 2, sample, None)


TOYS = ("8gaussians", "25gaussians", "swissroll")
