"""What an encoding of positions does, in numbers: laws that hold, and how far from them a variant is.

The questions are those of https://kexue.fm/archives/8231 (sinusoidal positions) and https://kexue.fm/archives/8397
(two axes), and of Su et al. 2021 (arXiv 2104.09864, section 3.4.3) on decay. Evidence is NumPy in float64; what the
code of this package does is measured by differentiating that code. The frequencies are the model's own, float32 numbers
taken as they are.

Letters: T positions, A axes, F = H/2 frequencies, K distances.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import expm
from scipy.special import sici

from rope.positions.angles import schedule
from rope.positions.extension import Extension, base_of
from rope.positions.rerope import LongRotation
from rope.positions.rotary import Rotation, rotate, rotation

Numbers = np.ndarray | jax.Array  # taken as float64
# Multiplication by i and by j: the generators of a rotation by quaternions, which do not commute (ij = -ji = k).
QUATERNION = np.array(
    [
        [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
        [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
    ],
    np.float64,
)


class Error(NamedTuple):
    """How far numbers are from what a law says."""

    largest: float
    rms: float


def turns(positions: Numbers, frequencies: Numbers) -> np.ndarray:
    """The angles p theta_i [T, F] of positions [T] at frequencies [F], or of [T, A] at [A, F]: inner products. float64.

    Raises ValueError where the axes of the two differ.
    """
    positions, theta = np.asarray(positions, np.float64), np.asarray(frequencies, np.float64)
    if theta.ndim == 1:
        positions, theta = positions[..., None], theta[None]
    if positions.shape[-1] != len(theta):
        raise ValueError(f"positions of shape {positions.shape}: the frequencies have {len(theta)} axes")
    return positions @ theta


def gram(encoding: Numbers) -> np.ndarray:
    """<p_m, p_n> [T, T] of an encoding's vectors [T, H], in float64."""
    wide = np.asarray(encoding, np.float64)
    return wide @ wide.T


def relative_deviation(matrix: Numbers, positions: Numbers) -> np.ndarray:
    """What of scores [T, T] is no function of the difference of the positions [T] or [T, A]: [T, T].

    The function is the mean of all scores with the same difference (in one dimension, of a diagonal).
    """
    positions = np.asarray(positions).reshape(len(positions), -1)
    differences = (positions[:, None] - positions).reshape(-1, positions.shape[1])
    group = np.unique(differences, axis=0, return_inverse=True)[1].reshape(np.shape(matrix))
    scores = np.asarray(matrix, np.float64)
    return scores - (np.bincount(group.ravel(), scores.ravel()) / np.bincount(group.ravel()))[group]


def toeplitz_error(matrix: Numbers, positions: Numbers) -> Error:
    """How far scores [T, T] are from a function of the difference of the positions [T] or [T, A]."""
    return error(relative_deviation(matrix, positions))


def error(difference: np.ndarray) -> Error:
    """The largest and the root mean square of differences of any shape."""
    return Error(float(np.abs(difference).max()), float(np.sqrt(np.mean(np.square(difference)))))


def decay(distances: Numbers, frequencies: Numbers) -> np.ndarray:
    """g(k) = sum_i cos(k theta_i) [K]: the scores of sinusoidal positions at distances [K] (or [K, A])."""
    return np.cos(turns(distances, frequencies)).sum(-1)


def decay_limit(distances: np.ndarray, size: int, theta: str) -> np.ndarray:
    """What `decay` is with very many frequencies: (H/2) times the integral of cos(k theta_t) over t in [0, 1]. [K].

    For theta_t = base^-t it is (H/2) [Ci(k) - Ci(k/base)] / ln base, with the cosine integral Ci; for other schedules
    it is integrated numerically. Raises ValueError for a theta that `schedule` refuses.
    """
    schedule(theta)
    k = np.abs(np.asarray(distances, np.float64))
    if not theta.endswith("^-t"):
        return size / 2 * decay_integral(k, theta)
    base = base_of(theta)
    if base == 1:
        return size / 2 * np.cos(k)
    near = k < 1e-200  # 0, or so little that k/base has lost its digits
    far = np.where(near, 1, k)
    return size / 2 * np.where(near, 1, (sici(far)[1] - sici(far / base)[1]) / np.log(base))


def decay_integral(distances: np.ndarray, theta: str) -> np.ndarray:
    """The integral of cos(k theta_t) over t in [0, 1] for distances [K],
    by Gauss's rule on panels of few turns each."""
    with jax.enable_x64(True):  # the schedule is JAX's, which is float32 otherwise

        def at(t: np.ndarray) -> np.ndarray:
            return np.asarray(schedule(theta)(t), np.float64)

        # Even in t and in theta together, and fine where either begins: t^0.3 is steep at 0.
        dense = np.concatenate([[0.0], np.geomspace(1e-12, 1, 4000)])
        along = dense + np.concatenate([[0.0], np.abs(np.diff(at(dense))).cumsum()])
        panels = 16 + int(np.max(distances, initial=0) * (along[-1] - 1) / 4)
        edges = np.interp(np.linspace(0, along[-1], panels + 1), along, dense)
        nodes, weights = np.polynomial.legendre.leggauss(12)
        half = np.diff(edges) / 2
        t = (edges[:-1, None] + half[:, None] * (nodes + 1)).ravel()
        theta_t, weights = at(t), (half[:, None] * weights).ravel()
    return np.array([np.cos(k * theta_t) @ weights for k in np.asarray(distances, np.float64)])


def crossings(distances: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """The distances where a curve [K] changes its sign, interpolated between neighbours;
    touching zero is no crossing."""
    keep = curve != 0
    x, y = np.asarray(distances, np.float64)[keep], np.asarray(curve, np.float64)[keep]
    before = np.flatnonzero(np.sign(y[1:]) != np.sign(y[:-1]))
    share = y[before] / (y[before] - y[before + 1])
    return x[before] + share * (x[before + 1] - x[before])


class Parts(NamedTuple):
    """Of scores [T, T]: what depends on m - n, and what depends on m + n."""

    relative: np.ndarray
    absolute: np.ndarray


def diagonal_parts(positions: np.ndarray, frequencies: Numbers, diagonal: np.ndarray) -> Parts:
    """p_m^T diag(h) p_n of sinusoidal positions [T] (interleaved, h [H]) as a sum of two:

    sum_i (h_2i + h_2i+1)/2 cos((m - n) theta_i) and sum_i (h_2i+1 - h_2i)/2 cos((m + n) theta_i).

    h is the diagonal of the second derivative of a model by its inputs at m and n. Only where each pair has equal ones
    is the second part nothing, and the scores exactly relative (kexue.fm/archives/8231). Raises ValueError for an h of
    another size.
    """
    h, phases = np.asarray(diagonal, np.float64), np.exp(1j * turns(positions, frequencies))
    if h.shape != (2 * phases.shape[-1],):
        raise ValueError(f"a diagonal of shape {h.shape} for positions of {2 * phases.shape[-1]} dimensions")
    sines, cosines = h[::2], h[1::2]
    relative = (phases * (sines + cosines) / 2) @ phases.conj().T
    absolute = (phases * (cosines - sines) / 2) @ phases.T
    return Parts(relative.real, absolute.real)


def decay_bound(distances: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """(1/F) sum_j |S_j| with S_j = sum_{i<j} e^(i k theta_i), j = 1..F, for distances [K] (or [K, A]): [K].

    Times a number of the query and the key alone it bounds a rotary score
    (Su et al. 2021, section 3.4.3, by summation by parts). (F + 1)/2 at distance 0.
    """
    return np.abs(np.exp(1j * turns(distances, frequencies)).cumsum(-1)).mean(-1)


def turning(rotation_at: Callable[[jax.Array], Rotation | LongRotation]) -> tuple[np.ndarray, float]:
    """The frequencies [F] by which a rotation of positions [T] turns, and its lengthening:
    its derivative at position 0.

    For any extension, whichever way it makes its frequencies (rope/positions/extension.py);
    of ReRoPE, within its window.
    """

    def near(positions: jax.Array) -> Rotation:
        found = rotation_at(positions)
        return found.near if isinstance(found, LongRotation) else found

    at, slope = jax.jvp(near, (jnp.zeros(1),), (jnp.ones(1),))
    length = np.asarray(at.cos[0, 0], np.float64)
    return np.asarray(slope.sin[0, 0], np.float64) / length, float(length.mean())


def effective_distance(extension: Extension, distances: np.ndarray) -> np.ndarray:
    """The distance that scores see at distances [K], beside the frequencies that `turning` finds: w + (k - w) leak
    beyond ReRoPE's window w, with leak 0, or 1 / factor of the leaky one. All others are a matter of frequencies alone:
    k."""
    k, e = np.asarray(distances, np.float64), extension
    if e.method not in ("rerope", "leaky"):
        return k
    beyond = (np.abs(k) - e.span) / e.factor if e.method == "leaky" else 0.0
    return np.where(np.abs(k) < e.span, k, np.sign(k) * (e.span + beyond))


def generators(frequencies: np.ndarray) -> np.ndarray:
    """B_a = dR(p)/dp_a at p = 0, [A, H, H], of frequencies [F] or [A, F]: R(p) = exp(sum_a p_a B_a). By differentiating
    `rotate`, so they are those of the code."""
    theta = jnp.atleast_2d(jnp.asarray(frequencies, jnp.float32))
    return np.moveaxis(np.asarray(_slope(jnp.zeros(len(theta)), theta), np.float64), -1, 0)


@jax.jit
@jax.jacfwd
def _slope(position: jax.Array, theta: jax.Array) -> jax.Array:
    """[H, H, A] by the coordinates [A]; each row that `rotate` turns is a column of R."""
    return rotate(jnp.eye(2 * theta.shape[1])[None], rotation(position[None], theta))[0].T


def commutator(by: np.ndarray) -> float:
    """The largest number in B_a B_b - B_b B_a over all pairs of generators [A, H, H]: 0 where they commute."""
    products = np.einsum("aij,bjk->abik", by, by)
    return float(np.abs(products - products.swapaxes(0, 1)).max())


def group_error(by: np.ndarray, positions: np.ndarray, others: np.ndarray) -> Error:
    """R(p)^T R(q) - R(q - p) for positions p and q [K, A], with R = exp(sum_a p_a B_a) of generators [A, H, H].

    Nothing where the generators commute and are skew-symmetric: then a score depends on q - p alone.
    """
    p, q, apart = (expm(np.einsum("ka,aij->kij", x, by)) for x in (positions, others, others - positions))
    return error(p.swapaxes(-1, -2) @ q - apart)


def recover(angles: np.ndarray, frequencies: np.ndarray, candidates: np.ndarray, tolerance: float = 1e-9) -> np.ndarray:
    """Which of candidates [C] or [C, A] has the rotation by angles [T, F] (whole turns aside): its number [T], or -1
    where none or several do.

    An encoding is reversible on a grid where it recovers every cell (kexue.fm/archives/8397). tolerance: on 1 - cos,
    the mean over the frequencies.
    """
    cosines = np.exp(1j * angles) @ np.exp(-1j * turns(candidates, frequencies)).T
    fits = 1 - cosines.real / angles.shape[-1] < tolerance
    return np.where(fits.sum(-1) == 1, fits.argmax(-1), -1)
