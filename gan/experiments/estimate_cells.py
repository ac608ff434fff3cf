"""What gan.experiments.estimate measures of two sets of points x [n, D] and y [m, D]: each function returns rows.

A row is {"what", "kind", "of", "value", "low", "high", "note"}: `kind` says what the number is to the distance (KINDS),
`of` whose: that of the files' points, or of the laws that they were drawn from. low and high are 95 %, if any.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import ttest_ind

from gan.bounds import ascended, couplings, distances_below, lower, mean
from gan.critic import Critic, Shape
from gan.laws import clouds
from gan.named import critic_of_name
from gan.training import program
from gan.transport import exact_w1
from training.experiment.statistics import Estimate, estimate_runs

Row = dict[str, Any]
Kind = Literal["exact", "lower", "upper", "estimate", "none", "other"]
KINDS: dict[Kind, str] = {
    "exact": "exact",
    "lower": "lower bound",
    "upper": "upper bound",
    "estimate": "estimate, no bound",
    "none": "no bound",
    "other": "another distance",
}


ROUNDED = 1e-6  # of f's spread, by each layer in float32 (gan.critic.precise)
MOST_PAIRS = 10**10  # that a potential is transformed over: two minutes of a core


class Points(NamedTuple):
    x: np.ndarray  # float64 [n, D]
    y: np.ndarray  # float64 [m, D]


def within_reach(points: Points) -> bool:
    return len(points.x) * len(points.y) <= MOST_PAIRS


def row(what: str, kind: Kind, of: str, value: float | Estimate, note: str = "") -> Row:
    value, low, high = value if isinstance(value, Estimate) else (value, math.nan, math.nan)
    numbers = {"value": value, "low": low, "high": high}
    return {"what": what, "kind": kind, "of": of, **{k: _plain(v) for k, v in numbers.items()}, "note": note}


def _plain(value: float) -> float | None:
    """As JSON has it, which knows no NaN."""
    return float(value) if math.isfinite(value) else None


def measured(rows: Callable[[], list[Row]]) -> dict[str, Any]:
    """The rows, the seconds that they took, those of all cores in all, and how much memory the process had at its peak
    meanwhile, in bytes."""
    try:  # Linux: the peak begins anew
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    clocks = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
    begin = {name: clock() for name, clock in clocks.items()}
    made = rows()
    return {"rows": made, **{name: clock() - begin[name] for name, clock in clocks.items()}, "memory": _peak()}


def _peak() -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), None)


def exact(points: Points) -> list[Row]:
    return [row("exact", "exact", "files", exact_w1(*points))]


def untrained(points: Points) -> list[Row]:
    """Two potentials that need no training: none, and a slope along the difference of the means."""
    x, y = points
    still = lower(x, y, np.zeros(len(x)), np.zeros(len(y)))
    line = x.mean(0) - y.mean(0)
    line /= max(float(np.linalg.norm(line)), 1e-300)
    along = lower(x, y, x @ line, y @ line)
    return [
        row("nearest neighbours", "lower", "files", still, note="potential 0"),
        row("means", "lower", "files", along, note="potential: a slope along their difference"),
    ]


def plans(points: Points, *, block: int, rounds: int) -> list[Row]:
    """A plan between all points, made better block by block."""
    cost, number = _planned(points, block, rounds)
    return [row("blocks", "upper", "files", cost, note=f"all points; blocks of {block:,}, rounds: {number}")]


def _planned(points: Points, block: int, rounds: int) -> tuple[float, int]:
    """Cost and number of the last of so many plans, or of the first that gains less than 0.03 % over the one before."""
    last = math.inf
    for number, plan in enumerate(couplings(*points, block=block)):
        cost = plan.cost(*points)
        best = number > 0 and len(plan.units) <= block  # all in one block
        if number == rounds or best or number > 1 and cost > 0.9997 * last:
            break
        last = cost
    return cost, number


def subsets(points: Points, *, count: int, draws: int) -> list[Row]:
    """Exact distances of so many points of each, no point in two subsets: fewer draws than asked where there are not
    enough points."""
    drawn = [_subsets(len(z), count, draws, seed) for seed, z in enumerate(points)]
    found = [exact_w1(points.x[i], points.y[j]) for i, j in zip(*drawn, strict=False)]
    note = f"in the mean; {len(found)} draws"
    bound = row(f"exact, {count:,} points", "upper", "laws", estimate_runs(found), note=note)
    return [bound | {"draws": found, "points": count}]


def _subsets(size: int, count: int, draws: int, seed: int) -> list[np.ndarray]:
    draws = min(draws, size // count)
    return np.split(np.random.default_rng([seed, count]).permutation(size)[: draws * count], draws)


def sliced(points: Points, *, directions: int) -> list[Row]:
    """The mean over random directions of the W1 of what is projected there."""
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(points.x.shape[1], directions))
    lines /= np.linalg.norm(lines, axis=0, keepdims=True)
    found = [exact_w1(points.x @ line[:, None], points.y @ line[:, None]) for line in lines.T]
    note = f"{directions} random directions; at most W1"
    return [row("sliced W1", "other", "files", estimate_runs(found), note=note)]


class Sinkhorn(NamedTuple):
    """Iterations over some points of each."""

    size: int  # points of each
    epsilon: float  # in their mean distances
    iterations: int  # at most

    def chosen(self, points: Points) -> tuple[Points, float]:
        """The points, and epsilon as a distance."""
        kept = [_subsets(len(z), min(self.size, len(z)), 1, seed)[0] for seed, z in enumerate(points)]
        few = Points(*(z[rows] for z, rows in zip(points, kept, strict=True)))
        return few, self.epsilon * (float(np.mean([part.mean() for *_, part in distances_below(*few)])) or 1.0)


def sinkhorn(points: Points, *, over: Sinkhorn) -> list[Row]:
    """The Sinkhorn divergence of some points; and of all a bound, by its potential."""
    few, epsilon = over.chosen(points)
    found = [_entropic(*pair, epsilon, over.iterations) for pair in (few, (few.x, few.x), (few.y, few.y))]
    value = found[0][0] - (found[1][0] + found[2][0]) / 2
    off = max(off for *_, off in found)
    told = "converged" if off < 1e-3 else f"not converged: {off:.1%} of the mass is not where it belongs"
    size = f"{len(few.x):,} and {len(few.y):,} points; epsilon {epsilon:.3g}"
    rows = [row("Sinkhorn divergence", "other", "laws", value, note=f"{size}; {told}")]
    if within_reach(points):
        bound = lower(*points, *(_soft(z, few.y, found[0][1], epsilon) for z in points))
        rows.append(row("Sinkhorn's potential", "lower", "files", bound, note=f"all points; learned of {size}"))
    return rows


def ascent(points: Points, *, over: Sinkhorn, passes: int, block: int, rounds: int) -> list[Row]:
    """Sinkhorn's potential made better over all points, and no network."""
    few, epsilon = over.chosen(points)
    of_y = _entropic(*few, epsilon, over.iterations)[1]
    target, _ = _planned(points, block, rounds)
    bound = lower(*points, *ascended(*points, _soft(points.x, few.y, of_y, epsilon), target, passes))
    return [row("ascent", "lower", "files", bound, note=f"from Sinkhorn's potential; {passes} passes over all pairs")]


def _entropic(x: np.ndarray, y: np.ndarray, epsilon: float, iterations: int) -> tuple[float, np.ndarray, float]:
    """(min over plans of the cost + epsilon KL(plan | all pairs alike), y's potential [m] / epsilon, the mass that the
    plan found has where it should not)."""
    import ot

    ((*_, costs),) = distances_below(x, y, tile=max(len(x), len(y)))
    masses = [np.full(len(z), 1 / len(z)) for z in (x, y)]
    plan, told = ot.bregman.sinkhorn_log(
        *masses, costs, epsilon, numItermax=iterations, stopThr=1e-4, log=True, warn=False
    )
    logs = told["log_u"], told["log_v"]
    value = sum(plan.sum(1 - axis) @ (log + np.log(len(log))) for axis, log in enumerate(logs))
    off = sum(np.abs(plan.sum(1 - axis) - mass).sum() for axis, mass in enumerate(masses)) / 2
    return epsilon * float(value), logs[1], float(off)


def _soft(z: np.ndarray, y: np.ndarray, of_y: np.ndarray, epsilon: float) -> np.ndarray:
    """[k]: -epsilon log sum_j exp(of_y_j - |z - y_j| / epsilon), a soft minimum of distances: no steeper than they."""
    parts = np.array_split(z, -(-len(z) // 1024))
    tiles = (next(distances_below(part, y, tile=max(len(part), len(y))))[2] for part in parts)
    return np.concatenate([-epsilon * logsumexp(of_y[None] - apart / epsilon, axis=1) for apart in tiles])


def critic(points: Points, name: str, *, steps: int, batch: int, hidden: tuple[int, ...], held_out: float) -> list[Row]:
    """Trained on a part of the points; what it says of all, and of the others."""
    orders = [np.random.default_rng(seed).permutation(len(z)) for seed, z in enumerate(points)]
    held = [int(held_out * len(z)) for z in points]
    kept = Points(*(z[order[count:]] for z, order, count in zip(points, orders, held, strict=True)))
    centre, unit = frame(kept)  # nothing of f is of the others
    framed, seen = ([(z - centre[None]) / unit for z in both] for both in (points, kept))
    made = made_critic(name, points.x.shape[1], hidden)
    f = trained(made, clouds(name, *seen), steps=steps, batch=batch)
    on_x, on_y = (unit * f(z) for z in framed)
    if not np.isfinite(np.concatenate([on_x, on_y])).all():
        raise ValueError(f"critic {name}: no numbers after {steps:,} steps; take another, or fewer steps")
    said = mean(on_x) - mean(on_y)
    if made.certified:  # less what float32 may have rounded, in f and in its constraint
        said -= ROUNDED * max(10, len(hidden) + 1) * max(float(np.ptp(part)) for part in (on_x, on_y))
    rows = [row(name, "lower" if made.certified else "none", "files", said, note=f"{made.constraint}; {steps:,} steps")]
    if within_reach(points):
        bound = lower(*points, on_x, on_y)
        rows.append(row(f"{name}, transformed", "lower", "files", bound, note="all points; whatever its slope"))
    fresh = [part[order[:count]] for part, order, count in zip((on_x, on_y), orders, held, strict=True)]
    if made.certified and min(held) > 1 and all(np.ptp(part) > 0 for part in fresh):
        within = ttest_ind(*fresh, equal_var=False).confidence_interval(0.95)
        note = f"{held[0]:,} and {held[1]:,} points that it has not seen"
        rows.append(
            row(f"{name}, held out", "lower", "laws", Estimate(mean(fresh[0]) - mean(fresh[1]), *within), note=note)
        )
    return rows


def frame(points: Points) -> tuple[np.ndarray, float]:
    """Where critics see 0, [D], and what they see as 1: the root mean square of the coordinates about it."""
    centre = (points.x.mean(0) + points.y.mean(0)) / 2
    squares = [np.einsum("nd,nd->", z - centre[None], z - centre[None]) / z.size for z in points]
    return centre, math.sqrt(sum(squares) / 2) or 1.0


def made_critic(name: str, dimensions: int, hidden: tuple[int, ...]) -> Critic:
    """Raises ValueError for one that has no potential in l2, or cannot be."""
    made = critic_of_name(name)(Shape(size=dimensions, hidden=hidden))
    if made.potential is None or made.metric != "l2":
        raise ValueError(f"critic {name!r}: it must have a potential, and be of l2")
    jax.eval_shape(made.init, jax.random.key(0))  # refused now, and not after the cells before it
    return made


def trained(made: Critic, law: Any, *, steps: int, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """f of a critic trained on the law, float64 [n] of points [n, D]. Updates shrink to nothing by the last step."""
    state, advance = program(made, law, batch=batch, seeds=1, decay_steps=steps)
    state = jax.tree.map(lambda leaf: leaf[0], advance(state, 0, steps))
    ask = jax.jit(lambda state, z: made.of(state)(z))

    def of(z: np.ndarray) -> np.ndarray:
        parts = np.array_split(z.astype(np.float32), -(-len(z) // 4096))
        return np.concatenate([np.asarray(ask(state, jnp.asarray(part)), np.float64) for part in parts])

    return of
