"""The report's sections on positions of a row (rope/report/report.py): a law, what this run found of it, and a picture.

Letters: T positions, K distances, F frequencies; c is the config.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rope.positions import analysis
from rope.positions.angles import frequencies, schedule
from rope.positions.buckets import relative_bias, relative_bucket
from rope.positions.extension import extended_rotation
from rope.positions.rerope import LongRotation, long_scores
from rope.positions.rotary import rotate
from rope.positions.sinusoidal import sinusoidal
from rope.report.config import ReportConfig
from rope.report.extensions import turning
from rope.report.plots import heat, lines, panels
from training.experiment.page import Section
from training.experiment.report import png

SEEN = 256  # positions of a map of scores


def seen(c: ReportConfig) -> np.ndarray:
    """At most SEEN positions over the row."""
    return np.arange(0, c.length, -(-c.length // SEEN))


def sinusoidal_scores(c: ReportConfig) -> Section:
    positions, theta = seen(c), frequencies(c.size, c.theta)
    angles = analysis.turns(positions, theta)
    exact = analysis.gram(np.concatenate([np.sin(angles), np.cos(angles)], -1))
    code = analysis.gram(sinusoidal(jnp.asarray(positions), theta))
    law = "⟨p_m, p_n⟩ = Σ_i cos((m − n) θ_i)"
    return _scores("sinusoidal-scores", "Sinusoidal: do scores see differences alone?", law, positions, code, exact)


def rotary_scores(c: ReportConfig) -> Section:
    """One query and one key, at all positions."""
    positions = seen(c)
    query, key = np.random.default_rng(c.seed).normal(size=(2, c.size)).astype(np.float32) / c.size**0.25
    by = extended_rotation(c.extension, jnp.asarray(positions), c.size, c.length, c.theta)
    queries, keys = (jnp.broadcast_to(x, (1, len(positions), 1, c.size)) for x in (query, key))
    if isinstance(by, LongRotation):
        code = np.asarray(long_scores(queries, keys, by, "interleaved")[0, 0])
    else:
        turned, others = (np.asarray(rotate(x, by)[0, :, 0], np.float64) for x in (queries, keys))
        code = turned @ others.T
    theta, factor = turning(c.extension, c)
    # Two dimensions are one complex number, and R(m) is e^(i m theta).
    query, key = (x.reshape(-1, 2).astype(np.float64) @ [1, 1j] * factor for x in (query, key))
    if isinstance(by, LongRotation):  # no product of two rotations, so a curve by distance
        distances = analysis.effective_distance(c.extension, np.arange(1 - c.length, c.length))
        curve = (np.exp(1j * analysis.turns(distances, theta)) @ (query * key.conj())).real
        exact = curve[positions[:, None] - positions + c.length - 1]
    else:
        phases = np.exp(1j * analysis.turns(positions, theta))
        exact = ((phases * query) @ (phases * key).conj().T).real
    law = "(R(m) q)ᵀ (R(n) k) = qᵀ R(n − m) k"
    return _scores("rotary-scores", "Rotary: do scores see differences alone?", law, positions, code, exact)


def _scores(name: str, title: str, law: str, positions: np.ndarray, code: np.ndarray, exact: np.ndarray) -> Section:
    found, ideal = (analysis.toeplitz_error(x, positions) for x in (code, exact))
    most, last = float(np.abs(exact).max()), int(positions[-1])
    off, law_off = (np.abs(analysis.relative_deviation(x, positions)).max(0) for x in (code, exact))
    figure, (left, right) = panels(1, 1.2)
    step = positions[1] - positions[0]
    title_of = "scores" if step == 1 else f"scores, every {step} positions"
    heat(figure, left, np.asarray(code), title=title_of, span=(0, last, last, 0))
    curves = {"this code, float32": off, "the formula, float64": law_off}
    curves = {label: np.maximum(curve, 1e-18) for label, curve in curves.items()}
    what = "largest deviation from the mean of a diagonal"
    lines(right, positions, curves, title=what, xlabel="position", ylog=True)
    says = (
        f"Scores reach {most:.3g}. From the mean of their diagonal they are at most {found.largest:.2g} away as the "
        f"code computes them up to position {last:,} in float32, and {ideal.largest:.2g} by the formula in float64: "
        "rounding, and nothing else, sees the positions themselves."
        if found.largest < 1e-2 * most
        else f"Scores reach {most:.3g} and are up to {found.largest:.2g} away from the mean of their diagonal: "
        "not relative."
    )
    figures = {
        "largest score": most,
        "Toeplitz error of the code, largest": found.largest,
        "Toeplitz error of the code, RMS": found.rms,
        "Toeplitz error of the formula, largest": ideal.largest,
        "code against formula, largest": analysis.error(np.asarray(code, np.float64) - exact).largest,
    }
    return Section(name, title, law, says, png(figure), figures)


def decay_and_limit(c: ReportConfig) -> Section:
    k, theta = np.arange(1, c.length), frequencies(c.size, c.theta)
    summed, limit = analysis.decay(k, theta), analysis.decay_limit(k, c.size, c.theta)
    wide = analysis.decay(k, frequencies(16 * c.size, c.theta)) / 16
    ends = np.asarray(schedule(c.theta)(jnp.array([0.0, 1.0])), np.float64)
    share = np.abs(summed - limit) / np.maximum(k * abs(ends[0] - ends[1]), 1e-9)
    apart, apart_wide = np.abs(summed - limit), np.abs(wide - limit)
    crossed = analysis.crossings(k, summed)
    figure, (axes,) = panels(1)
    half = c.size / 2
    curves = {f"sum, size {c.size}": summed / half, f"sum, size {16 * c.size}": wide / half, "integral": limit / half}
    what = f"decay of theta = {c.theta}"
    lines(axes, k, curves, title=what, xlabel="distance k", ylabel="g(k) / g(0)", xlog=True, bold="integral", zero=True)
    form = (
        "(d/2) [Ci(k) − Ci(k/base)] / ln base"
        if c.theta.endswith("^-t")
        else "(d/2) ∫ cos(k θ_t) dt over t from 0 to 1"
    )
    says = (
        f"At distance {k[-1]:,} the integral is {limit[-1] / half:.3f} of its value at 0. The sum of {c.size // 2} "
        f"cosines stays within {apart.max() / half:.3f} of it, {16 * c.size // 2:,} cosines within "
        f"{apart_wide.max() / half:.4f}: fewer make ripples, which cross zero {len(crossed)} times. "
        "The difference may be k |θ_0 − θ_1|, as much as the cosines can vary; "
        f"at most {share.max():.2f} of that is used."
    )
    figures = {
        "integral at the last distance": float(limit[-1] / half),
        "sum against integral, largest": float(apart.max() / half),
        f"the same at size {16 * c.size}": float(apart_wide.max() / half),
        "largest share of what is allowed": float(share.max()),
        "crossings of the sum": len(crossed),
    }
    return Section(
        "decay", "How do scores decay with distance?", f"g(k) = Σ_i cos(k θ_i) ≈ {form}", says, png(figure), figures
    )


def schedules(c: ReportConfig) -> Section:
    t, k = np.linspace(0, 1, 200, endpoint=False), np.arange(1, c.length)
    names = tuple(dict.fromkeys((*c.compare, c.theta)))
    limits = {name: analysis.decay_limit(k, 2, name) for name in names}
    figure, (left, right) = panels(0.8, 1.6)
    lines(
        left, t, {x: np.asarray(frequencies(400, x)) for x in names}, title="frequencies", xlabel="t", ylabel="theta_t"
    )
    what = "decay of the integral"
    lines(right, k, limits, title=what, xlabel="distance k", ylabel="g(k) / g(0)", xlog=True, bold=c.theta, zero=True)
    figures: dict[str, float | None] = {}
    words = []
    for name, limit in limits.items():
        crossed = analysis.crossings(k, limit)
        first = float(crossed[0]) if len(crossed) else None
        figures |= {f"{name}: crossings": len(crossed), f"{name}: first at": first}
        figures |= {
            f"{name}: crossings of the sum": len(analysis.crossings(k, analysis.decay(k, frequencies(c.size, name))))
        }
        figures |= {f"{name}: at the last distance": float(limit[-1])}
        often = "once, at" if len(crossed) == 1 else f"{len(crossed):,} times, first at"
        words.append(f"{name} {often} {first:.1f}" if len(crossed) else f"{name} never")
    says = (
        f"Up to distance {k[-1]:,} the integral crosses zero: {'; '.join(words)}. A curve that crosses often scores "
        "some far positions like near ones with the sign turned."
    )
    law = "∫ cos(k θ_t) dt over t from 0 to 1"
    return Section("schedules", "Which frequencies decay, and which cross zero?", law, says, png(figure), figures)


def unequal_diagonal(c: ReportConfig) -> Section:
    positions, theta = seen(c), frequencies(c.size, c.theta)
    drawn = np.random.default_rng(c.seed).uniform(-1, 1, c.size)
    grades = np.linspace(0, 1, 11)
    parts = [analysis.diagonal_parts(positions, theta, 1 + grade * drawn) for grade in grades]
    ratios = np.array([analysis.error(p.absolute).rms / analysis.error(p.relative).rms for p in parts])
    last = int(positions[-1])
    figure, (left, middle, right) = panels(1, 1, 0.9)
    heat(figure, left, parts[5].relative, title="part of m − n, s = 0.5", span=(0, last, last, 0))
    heat(figure, middle, parts[5].absolute, title="part of m + n, s = 0.5", span=(0, last, last, 0), ylabel="")
    lines(right, grades, {"": ratios}, title="RMS of m + n / m − n", xlabel="s: h is 1 + s times uniform(−1, 1)")
    says = (
        "Where each pair of dimensions has one h, the part of m + n is "
        f"{analysis.error(parts[0].absolute).largest:.2g}. With h drawn between 0.5 and 1.5 its root mean square is "
        f"{ratios[5]:.3f} of the part of m − n, and {ratios[-1]:.3f} with h between 0 and 2: so much of the scores is "
        "no longer relative."
    )
    law = "p_mᵀ diag(h) p_n = Σ_i ½(h_2i + h_2i+1) cos((m − n) θ_i) + ½(h_2i+1 − h_2i) cos((m + n) θ_i)"
    figures = {f"ratio at s = {grade:.1f}": float(ratio) for grade, ratio in zip(grades, ratios, strict=True)}
    title = "What if a model weighs the dimensions unequally?"
    return Section("diagonal", title, law, says, png(figure), figures)


def buckets(c: ReportConfig) -> Section:
    reach = min(c.length - 1, 2 * c.max_distance)
    offsets = np.arange(-reach, reach + 1)
    both, causal = (
        np.asarray(
            relative_bucket(jnp.asarray(offsets), bidirectional=x, buckets=c.buckets, max_distance=c.max_distance)
        )
        for x in (True, False)
    )
    positions = np.arange(min(c.length, SEEN))
    table = jax.random.normal(jax.random.key(c.seed), (c.buckets, 1))
    bias = relative_bias(table, len(positions), len(positions), bidirectional=True, max_distance=c.max_distance)[0, 0]
    error = analysis.toeplitz_error(bias, positions)
    left_side = both[: reach + 1][::-1]  # by distance to the left
    counts = np.bincount(left_side)
    exact = int((counts[: left_side[-1]] == 1).sum())
    alike = int(np.argmax(left_side == left_side[-1]))
    figure, (left, right) = panels(1.3, 1)
    curves = {"bidirectional": both, "causal": causal}
    lines(left, offsets, curves, title="buckets", xlabel="offset: key − query", ylabel="bucket")
    last = int(positions[-1])
    heat(figure, right, np.asarray(bias), title="bias of a table drawn at random", span=(0, last, last, 0))
    right.set(xlabel="key", ylabel="query")
    says = (
        f"Of {c.buckets} buckets, {c.buckets // 2} a side, {exact} distances have one of their own, and all from "
        f"{alike:,} on share the last (the formula allows {c.max_distance:,}). The bias depends on the difference "
        f"alone: it is {error.largest:.2g} from its diagonals' means."
    )
    figures = {
        "distances with a bucket of their own": exact,
        "distance from which all are alike": alike,
        "largest bucket in use": int(both.max()),
        "Toeplitz error of the bias, largest": error.largest,
    }
    law = (
        "bucket(k) = k below B/4, else B/4 + ⌊ln(k / (B/4)) / ln(max / (B/4)) · B/4⌋, at most B/2 − 1; "
        "+ B/2 for keys to the right"
    )
    return Section("buckets", "Which distances does T5 tell apart?", law, says, png(figure), figures)
