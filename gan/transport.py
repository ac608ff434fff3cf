"""The Wasserstein-1 distance of finite samples, by other people's solvers.

exact: by sorting on a line, else as an assignment of equally many points (scipy), else as a linear program (POT). On a
device: `exact_on_device`. Sinkhorn and sliced distances are monitors: they are other quantities, and are never called
W1.
"""

import math
import warnings
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from gan.metric import Metric, distances, known

Points = np.ndarray | jax.Array  # a sample: [n, D], or images
_SCIPY = {"l2": "euclidean", "l1": "cityblock"}


class Plan(NamedTuple):
    """An optimal transport between two samples."""

    cost: float
    source: np.ndarray  # [k] rows of x
    target: np.ndarray  # [k] rows of y, to which they go
    mass: np.ndarray  # [k], in all 1


def exact_w1(
    x: Points, y: Points, metric: Metric = "l2", x_weights: Points | None = None, y_weights: Points | None = None
) -> float:
    """W1 of two samples [n, D] and [m, D], in float64; weights [n] and [m] sum to 1, and are equal unless given.

    Raises ValueError for samples that are empty, not finite or of different dimensions, for weights that are none, for
    a distance beyond float64 and where the solver gives up.
    """
    x, y = checked(x, y)
    known(metric)
    if x.shape[1] == 1:
        x, y, power = scaled(x, y)
        masses = _masses(x, x_weights), _masses(y, y_weights)
        return unscaled(float(wasserstein_distance(x[:, 0], y[:, 0], *masses)), power)
    return exact_plan(x, y, metric, x_weights, y_weights).cost


def exact_plan(
    x: Points, y: Points, metric: Metric = "l2", x_weights: Points | None = None, y_weights: Points | None = None
) -> Plan:
    """Who goes where at the least cost. Errors as `exact_w1`."""
    x, y, power = scaled(*checked(x, y))
    cost = cdist(x, y, _SCIPY[known(metric)])
    alike = len(x) == len(y) and x_weights is None and y_weights is None
    source, target, mass = optimal(cost, None if alike else (_masses(x, x_weights), _masses(y, y_weights)))
    mean = cost[source, target].mean() if alike else (cost[source, target] * mass).sum()
    return Plan(unscaled(float(mean), power), source, target, mass)


def optimal(
    cost: np.ndarray, masses: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and mass [k] at the least of the costs [n, m], masses [n] and [m] summing to 1; without them n = m
    equal ones. Raises ValueError where the solver gives up."""
    if masses is None:
        source, target = linear_sum_assignment(cost)
        return source, target, np.full(len(cost), 1 / len(cost))
    import ot  # a second, where it is needed

    unit = cost.max() or 1.0  # POT's tolerances are absolute
    with warnings.catch_warnings(action="ignore"):  # that it gave up is an error here
        plan, told = ot.emd(*masses, cost / unit, numItermax=10_000_000, log=True)
    if told["warning"]:
        raise ValueError(f"no optimal transport was found: {told['warning']}")
    source, target = plan.nonzero()
    mass = plan[source, target]
    # Beside a cost of 1e11 the solver's potentials do not tell small ones apart: what they prove is looked at. (Up to
    # 1e10 plans are the best to rounding, and what is proved of them falls short by 1e-4.)
    of_x = np.where(masses[0] > 0, told["u"] * unit, -np.inf)
    proved = masses[0][masses[0] > 0] @ of_x[masses[0] > 0] + masses[1] @ (cost - of_x[:, None]).min(0)
    if not (found := cost[source, target] @ mass) - proved <= 1e-4 * found + 1e-12 * np.median(cost):
        raise ValueError(
            f"no optimal transport was found: costs up to {unit:.3g} hide small ones, so that W1 is only known to be "
            f"from {max(proved, 0):.6g} to {found:.6g}, in units of the largest coordinate; leave out points far away"
        )
    return source, target, mass


def _masses(points: np.ndarray, weights: Points | None) -> np.ndarray:
    """float64 [n], equal unless given."""
    if weights is None:
        return np.full(len(points), 1 / len(points))
    mass = np.asarray(weights, float)
    if mass.shape != (len(points),) or not (mass >= 0).all() or not abs(mass.sum() - 1) < 1e-6:
        raise ValueError(
            f"weights of {len(points)} points: as many numbers from 0, in all 1, not {mass.shape} in all {mass.sum():g}"
        )
    return mass


def matched(x: np.ndarray, y: np.ndarray, metric: Metric = "l2") -> np.ndarray:
    """int32 [n]: which of equally many points of y each of x goes to, at the least cost."""
    x, y, _ = scaled(*checked(x, y))
    return linear_sum_assignment(cdist(x, y, _SCIPY[known(metric)]))[1].astype(np.int32)


def scaled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Both divided by the power of two that makes the largest coordinate about 1, which is exact, so that no square in
    a distance overflows or vanishes; and that power."""
    power = int(np.frexp(max(np.abs(x).max(), np.abs(y).max()))[1])
    return np.ldexp(x, -power), np.ldexp(y, -power), power


def unscaled(cost: float, power: int) -> float:
    try:
        return math.ldexp(cost, power)
    except OverflowError:
        raise ValueError("the distance is beyond float64: scale the samples, W1 of points times c is c W1") from None


def exact_on_device(x: jax.Array, y: jax.Array, metric: Metric = "l2") -> jax.Array:
    """W1 of equally many points, inside a compiled program: ott-jax's Hungarian algorithm."""
    geometry, unreg = need_ott("geometry.geometry", "tools.unreg")
    with jax.numpy_rank_promotion("allow"):
        return unreg.hungarian(geometry.Geometry(cost_matrix=distances(x, y, metric)))[0]


def entropic(
    x: jax.Array, y: jax.Array, metric: Metric = "l2", epsilon: float | jax.Array = 0.1, iterations: int = 2000
) -> jax.Array:
    """min over plans of the mean cost + epsilon KL(plan | all pairs alike), by ott-jax's Sinkhorn;
    epsilon in units of distance.

    Raises ValueError for an epsilon that is not above 0, and where so many iterations do not converge; within a
    compiled program, which cannot raise, the number is then NaN, and its gradient that of where it stopped.
    """
    return _entropic(x, y, metric, epsilon, iterations)["regularized"]


def _entropic(
    x: jax.Array, y: jax.Array, metric: Metric, epsilon: float | jax.Array, iterations: int
) -> dict[str, jax.Array]:
    geometry, linear = need_ott("geometry.geometry", "solvers.linear")
    _above(epsilon)
    with jax.numpy_rank_promotion("allow"):  # whatever the caller asks of its own code
        costs = geometry.Geometry(cost_matrix=distances(x, y, metric), epsilon=epsilon)
        found = linear.solve(costs, max_iterations=iterations)
    done = found.converged
    if not isinstance(done, jax.core.Tracer) and not done:
        raise ValueError(
            f"Sinkhorn has not converged in {iterations:,} iterations at epsilon {epsilon:.3g}: "
            "allow more (iterations), or take a larger epsilon"
        )
    told = jnp.where(done, 0.0, jnp.nan)
    return {"primal": found.primal_cost + told, "regularized": found.reg_ot_cost + told}


def sinkhorn(
    x: jax.Array, y: jax.Array, metric: Metric = "l2", epsilon: float = 0.01, iterations: int = 2000
) -> dict[str, jax.Array]:
    """primal: the cost of the entropic plan, at most a few hundredths above W1; debiased: the Sinkhorn divergence.

    epsilon is in mean costs. Errors as `entropic`.
    """
    _above(epsilon)
    scale = epsilon * jnp.mean(distances(x, y, metric))
    between = _entropic(x, y, metric, scale, iterations)
    within = [entropic(z, z, metric, scale, iterations) for z in (x, y)]
    return {"primal": between["primal"], "debiased": between["regularized"] - sum(within) / 2}


def _above(epsilon: float | jax.Array) -> None:
    if not isinstance(epsilon, jax.core.Tracer) and not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon is {epsilon}: it must be above 0; the exact distance is exact_w1")


def need_ott(*names: str) -> list[ModuleType]:
    """ott-jax's modules of these names. Raises ValueError with the remedy where it is not installed."""
    try:
        return [import_module(f"ott.{name}") for name in names or ("tools",)]
    except ImportError:
        raise ValueError("this distance needs ott-jax: pip install 'ott-jax>=0.6'") from None


def sliced(x: jax.Array, y: jax.Array, key: jax.Array, directions: int = 128) -> jax.Array:
    """The mean over random directions of the W1 of equally many projected points:
    at most W1, and far below in many dimensions."""
    along = jax.random.normal(key, (x.shape[1], directions))
    along = along / jnp.linalg.norm(along, axis=0, keepdims=True)
    sorted_ = [jnp.sort(jnp.matmul(z, along, precision=jax.lax.Precision.HIGHEST), axis=0) for z in (x, y)]
    return jnp.mean(jnp.abs(sorted_[0] - sorted_[1]))


def checked(x: Points, y: Points) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [n, D]; a sample's further axes are pixels."""
    x, y = (np.asarray(z, np.float64).reshape(len(z), math.prod(np.shape(z)[1:])) for z in (x, y))
    for name, z in (("first", x), ("second", y)):
        if not z.size:
            raise ValueError(f"the {name} sample is empty")
        if not np.isfinite(z).all():
            row = int((~np.isfinite(z)).any(1).argmax())
            raise ValueError(f"the {name} sample has a value that is no finite number, in row {row}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"samples of {x.shape[1]} and {y.shape[1]} dimensions: they must have as many")
    return x, y
