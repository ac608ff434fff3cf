"""The report's sections on rotary positions beyond the trained length (rope/report/report.py)."""

from dataclasses import replace

import numpy as np

from rope.positions import analysis
from rope.positions.extension import BASED, Extension, Method, base_of, extended_rotation
from rope.report.config import ReportConfig
from rope.report.plots import lines, panels
from training.experiment.page import Section
from training.experiment.report import png


def methods(c: ReportConfig) -> dict[str, Extension]:
    """Every extension that theta allows, at the config's factor, trained length and window."""
    names: list[Method] = ["none", "linear", "ntk", "dynamic", "yarn", "dynamic-yarn", "longrope", "rerope", "leaky"]
    if not c.extension.long_factors:
        names.remove("longrope")
    if not c.theta.endswith("^-t") or c.size == 2:
        names = [name for name in names if name not in BASED]
    elif base_of(c.theta) <= 1:
        names = [name for name in names if "yarn" not in name]  # its pairs must slow down
    return {name: replace(c.extension, method=name) for name in names}


def turning(extension: Extension, c: ReportConfig) -> tuple[np.ndarray, float]:
    return analysis.turning(lambda p: extended_rotation(extension, p, c.size, c.length, c.theta))


def bounds(c: ReportConfig) -> Section:
    k, curves = np.arange(c.length), {}
    for name, e in methods(c).items():
        theta, factor = turning(e, c)
        curves[name] = analysis.decay_bound(analysis.effective_distance(e, k), theta) * factor**2
    # The bound goes up and down from one distance to the next, so the picture shows means of neighbours.
    width = max(1, c.length // 64)
    smooth = {x: np.convolve(curve, np.full(width, 1 / width), "valid") for x, curve in curves.items()}
    middles = np.convolve(k, np.full(width, 1 / width), "valid")
    figure, (axes,) = panels(1)
    what = f"mean over {width} distances; theta = {c.theta}, factor {c.extension.factor:g}"
    lines(
        axes,
        middles,
        smooth,
        title=what,
        xlabel="distance k",
        ylabel="mean |S_j|",
        bold=c.extension.method,
        beside=True,
    )
    figures: dict[str, float | None] = {"at distance 0": float(curves["none"][0])}
    trained = min(c.extension.trained, c.length - 1)
    for name, curve in curves.items():
        figures |= {f"{name}: mean up to {trained}": float(curve[: trained + 1].mean())}
        figures |= {f"{name}: mean beyond": float(curve[trained + 1 :].mean()) if trained < c.length - 1 else None}
    if c.extension.trained < c.length:
        axes.axvline(c.extension.trained, color="0.4", linestyle=":", linewidth=1.2)
    beyond = {name: figures[f"{name}: mean beyond"] for name in curves}
    says = (
        f"Without an extension the bound is {figures['at distance 0']:.3g} at distance 0, in the mean "
        f"{figures[f'none: mean up to {trained}']:.3g} up to {trained:,}"
        + (
            f", and {beyond['none']:.3g} beyond that (dotted). There the extensions have "
            + ", ".join(f"{name} {x:.3g}" for name, x in beyond.items() if name != "none")
            if beyond["none"] is not None
            else ""
        )
        + "."
    )
    law = "|score(k)| ≤ C (1/F) Σ_j |S_j|, S_j = Σ_{i<j} e^{i k θ_i}"
    return Section("rotary-bound", "How large can a rotary score be at a distance?", law, says, png(figure), figures)


def extensions(c: ReportConfig) -> Section:
    k, found = np.arange(c.length), methods(c)
    plain = turning(found["none"], c)[0]
    seen_at = {
        name: analysis.effective_distance(e, k) for name, e in found.items() if name in ("none", "rerope", "leaky")
    }
    # Of position interpolation it is the same to divide positions or frequencies; here it is among the frequencies.
    slower = {name: turning(e, c)[0] for name, e in found.items() if name not in ("rerope", "leaky")}
    ratios = {name: np.divide(x, plain, out=np.ones_like(x), where=plain != 0) for name, x in slower.items()}
    figure, (left, right) = panels(1, 1.2)
    lines(left, k, seen_at, title="distances", xlabel="distance", ylabel="counts as", bold=c.extension.method)
    lines(
        right,
        np.arange(c.size // 2),
        ratios,
        title="frequencies",
        xlabel="pair i",
        ylabel="of the trained frequency",
        bold=c.extension.method,
    )
    left.axhline(c.extension.trained, color="0.4", linestyle=":", linewidth=1.2)
    farthest = {name: float(x[-1]) for name, x in seen_at.items()}
    says = (
        f"At factor {c.extension.factor:g} the farthest distance, {c.length - 1:,}, counts as "
        f"{farthest['rerope']:,.0f} with ReRoPE and {farthest['leaky']:,.0f} with the leaky one; "
        f"{c.extension.trained:,} were trained (dotted). The slowest pair turns at "
        + ", ".join(f"{x[-1]:.3g} ({name})" for name, x in ratios.items())
        + " of its trained frequency."
    )
    figures = {f"farthest distance, {name}": x for name, x in farthest.items()}
    figures |= {
        f"{which} pair, {name}": float(x[i]) for name, x in ratios.items() for which, i in (("first", 0), ("last", -1))
    }
    law = "θ′_i / θ_i, or distances beyond a window w: w + (k − w) / factor"
    return Section(
        "extensions", "What do longer rows do to distances and frequencies?", law, says, png(figure), figures
    )
