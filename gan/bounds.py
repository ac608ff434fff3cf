"""Bounds of W1 of two finite sets of points, each of a set alike in weight, that hold whatever made them.

Above it is the cost of any plan between all points of both. Below it is the mean of f(x_i) and g(y_j) wherever
f(x_i) + g(y_j) <= |x_i - y_j| for all pairs (Kantorovich's duality, for the empirical laws): of any numbers f there is
such a g, their transform (gan.objectives.c_transform, here over all points and not over a batch). Euclidean, in
float64, and rounded outwards.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gan.transport import optimal, scaled, unscaled

EPSILON = float(np.finfo(np.float64).eps)
TILE = 512  # pairs at a time: 2 MB, what is near to a core


def lower(x: np.ndarray, y: np.ndarray, on_x: np.ndarray, on_y: np.ndarray) -> float:
    """Of x [n, D], y [m, D] and a potential's values [n] and [m] there, high on x and low on y: at most W1, whatever
    they are, and no less than their difference of means where the potential is 1-Lipschitz. The better of two
    transforms, f(x_i) with min_i |x_i - y_j| - f(x_i), and -f(y_j) with min_j |x_i - y_j| + f(y_j). Raises ValueError
    for other shapes, and for what is not finite."""
    x, y, on_x, on_y = (np.asarray(part, np.float64) for part in (x, y, on_x, on_y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(f"points of shapes {x.shape} and {y.shape}: [n, D] and [m, D] are needed")
    if (on_x.shape, on_y.shape) != ((len(x),), (len(y),)):
        raise ValueError(f"values of shapes {on_x.shape} and {on_y.shape}: [{len(x)}] and [{len(y)}], one a point")
    if not all(np.isfinite(part).all() for part in (x, y, on_x, on_y)):
        raise ValueError("points or values that are no finite numbers")
    of_y, of_x = np.full(len(y), np.inf), np.full(len(x), np.inf)
    for rows, columns, apart in distances_below(x, y):
        of_x[rows] = np.minimum(of_x[rows], (apart + on_y[None, columns]).min(1))
        of_y[columns] = np.minimum(of_y[columns], (apart - on_x[rows, None]).min(0))
    found = max(mean(on_x) + mean(of_y), mean(of_x) - mean(on_y))
    return found - 8 * EPSILON * max(np.abs(part).max() for part in (on_x, on_y, of_x, of_y))


def ascended(
    x: np.ndarray, y: np.ndarray, on_x: np.ndarray, target: float, passes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values [n] and [m] for `lower`, made better for these points by so many passes over all pairs.

    The transform of f gives each of y's points to the one of x that it costs least. Where more comes to a point than it
    has, f falls, and where less comes it rises: subgradients of what the transform makes of f, in steps that would
    reach `target`, a bound from above, if all were linear (Polyak 1969).
    """
    f, best, found = on_x, -math.inf, (on_x, np.zeros(len(y)))
    for _ in range(passes):
        of_y, nearest = np.full(len(y), np.inf), np.zeros(len(y), int)
        for rows, columns, apart in distances_below(y, x):
            apart -= f[None, columns]
            at = apart.argmin(1)
            least = apart[np.arange(len(at)), at]
            nearest[rows] = np.where(least < of_y[rows], at + columns.start, nearest[rows])
            of_y[rows] = np.minimum(least, of_y[rows])
        value = mean(f) + mean(of_y)
        if value > best:
            best, found = value, (f, -of_y)
        short = 1 - np.bincount(nearest, minlength=len(x)) * (len(x) / len(y))
        way = np.clip(short, -3, 1)  # lest few points, to which most comes, take all of the step
        if not short.any():
            break
        f = f + max(target - value, 0) / (way @ short / len(x)) * way
    return found


def mean(values: np.ndarray) -> float:
    """Summed without rounding."""
    return math.fsum(values) / len(values)


def distances_below(x: np.ndarray, y: np.ndarray, tile: int = TILE) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Tiles (rows, columns, distances) of all pairs by products, each distance less what they may be rounded by."""
    x, y, power = scaled(np.asarray(x, np.float64), np.asarray(y, np.float64))
    centre = (x.mean(0) + y.mean(0)) / 2
    x, y = x - centre[None], y - centre[None]
    squares = [np.einsum("nd,nd->n", z, z)[:, None] for z in (x, y)]
    rounding = 4 * (x.shape[1] + 8) * EPSILON * max(part.max() for part in squares)
    # |x|^2 - 2 x y + |y|^2 in one product
    x = np.concatenate([-2 * x, squares[0] - rounding, np.ones_like(squares[0])], 1)
    y = np.concatenate([y, np.ones_like(squares[1]), squares[1]], 1)
    for rows in _slices(len(x), tile):
        for columns in _slices(len(y), tile):
            apart = x[rows] @ y[columns].T
            yield rows, columns, np.ldexp(np.sqrt(np.maximum(apart, 0, out=apart), out=apart), power, out=apart)


def _slices(count: int, tile: int) -> Iterator[slice]:
    return (slice(first, min(first + tile, count)) for first in range(0, count, tile))


class Coupling(NamedTuple):
    """A plan of n points with m by whole units of mass, m / gcd(n, m) a point of x: that all of it arrives is exact."""

    source: np.ndarray  # [k] rows of x
    target: np.ndarray  # [k] rows of y
    units: np.ndarray  # int64 [k]

    def cost(self, x: np.ndarray, y: np.ndarray) -> float:
        """At least W1 of the points, and rounded up."""
        x, y, power = scaled(np.asarray(x, np.float64), np.asarray(y, np.float64))
        parts = np.array_split(np.arange(len(self.units)), -(-len(self.units) * x.shape[1] // 2**20))
        costs = [self.units[part] * lengths(x[self.source[part]] - y[self.target[part]]) for part in parts]
        mean = math.fsum(np.concatenate(costs)) / int(self.units.sum())
        return unscaled(mean * (1 + (x.shape[1] + 16) * EPSILON), power)


def lengths(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nd,nd->n", x, x))


def couplings(x: np.ndarray, y: np.ndarray, *, block: int, seed: int = 0) -> Iterator[Coupling]:
    """Plans between all points, each no dearer than the one before, without an end.

    The first pairs them in their order along a line. Each further one cuts the last one's pairs into blocks along
    another line and moves what each block has as is best within it. Lines go through two points drawn from both.
    """
    x, y, _ = scaled(np.asarray(x, np.float64), np.asarray(y, np.float64))  # plans are those of any scale
    rng = np.random.default_rng(seed)
    plan = along_a_line(*(z @ _line(x, y, rng) for z in (x, y)))
    while True:
        yield plan
        line = _line(x, y, rng)
        order = np.argsort(x[plan.source] @ line + y[plan.target] @ line, kind="stable")
        cuts = np.linspace(0, len(order), max(2, -(-len(order) // block) + 1)).astype(int)
        parts = [_improved(x, y, *(z[order[first:last]] for z in plan)) for first, last in pairwise(cuts)]
        source, target, units = map(np.concatenate, zip(*parts, strict=True))
        plan = Coupling(source, target, units)


def _line(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[D], between two different points if a hundred draws find them."""
    for _ in range(100):
        first, second = ((x, y)[rng.integers(2)] for _ in range(2))
        line = first[rng.integers(len(first))] - second[rng.integers(len(second))]
        if line.any():
            break
    return line


def along_a_line(x: np.ndarray, y: np.ndarray) -> Coupling:
    """Of numbers [n] and [m], each set in its order: on a line that is the best."""
    common = math.gcd(len(x), len(y))
    ends = [np.arange(1, len(z) + 1) * (other // common) for z, other in ((x, len(y)), (y, len(x)))]
    all_ends = np.union1d(*ends)
    places = [np.argsort(z, kind="stable")[np.searchsorted(end, all_ends)] for z, end in zip((x, y), ends, strict=True)]
    return Coupling(places[0], places[1], np.diff(all_ends, prepend=0))


def _improved(x: np.ndarray, y: np.ndarray, source: np.ndarray, target: np.ndarray, units: np.ndarray) -> Coupling:
    """The same mass from and to each point, at the least cost among these."""
    (rows, row), (columns, column) = (np.unique(z, return_inverse=True) for z in (source, target))
    masses = np.bincount(row, units), np.bincount(column, units)
    total = int(units.sum())
    costs = next(distances_below(x[rows], y[columns], tile=len(units)))[2]
    alike = len(rows) == len(columns) and len({*np.concatenate(masses)}) == 1
    try:
        i, j, mass = optimal(costs, None if alike else (masses[0] / total, masses[1] / total))
    except ValueError:
        return Coupling(source, target, units)
    moved = np.rint(mass * total).astype(np.int64)
    kept = all((np.bincount(k, moved, len(part)) == part).all() for k, part in zip((i, j), masses, strict=True))
    better = (moved * costs[i, j]).sum() <= (units * costs[row, column]).sum()
    return Coupling(rows[i], columns[j], moved) if kept and better else Coupling(source, target, units)
