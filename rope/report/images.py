"""The report's sections on positions of an image (rope/report/report.py)."""

import jax
import numpy as np

from rope.positions import analysis
from rope.positions.angles import axial_frequencies, frequencies, grid, mixed_frequencies
from rope.report.config import ReportConfig
from rope.report.plots import heat, lines, panels
from training.experiment.page import Section
from training.experiment.report import png

RANGES = (1, 2, 4, 8, 16, 32, 64)  # how large the coordinates are that the law of differences is checked at


def image_frequencies(c: ReportConfig, size: int) -> dict[str, np.ndarray]:
    """[A, F] for heads of `size`: the two of this package, and the 1-D frequencies turned by x + y."""
    return {
        "axial": np.asarray(axial_frequencies(size, 2, c.theta)),
        "mixed": np.asarray(mixed_frequencies(jax.random.key(c.seed), 1, size, 2, c.mixed_theta)[0]),
        "flattened x + y": np.tile(np.asarray(frequencies(size, c.theta)), (2, 1)),
    }


def images(c: ReportConfig) -> Section:
    """The scores of a cell with its neighbours."""
    reach = c.side - 1
    offsets = np.asarray(grid(2 * c.side - 1, 2 * c.side - 1)) - reach
    figure, axes = panels(1, 1, 1)
    figures, thetas = {}, {"axial": c.theta, "mixed": c.mixed_theta, "flattened x + y": c.theta}
    for panel, (name, theta) in zip(axes, image_frequencies(c, c.size).items(), strict=True):
        kernel = analysis.decay(offsets, theta).reshape(2 * c.side - 1, -1) / (c.size // 2)
        span = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
        heat(
            figure,
            panel,
            kernel,
            title=f"{name}, {thetas[name]}",
            span=span,
            xlabel="x",
            ylabel="y" if panel is axes[0] else "",
        )
        panel.set_aspect("equal")
        middle = kernel[reach]
        # 0 for a function of y plus one of x: the scores along both axes then say all.
        joint = kernel - kernel[:, reach : reach + 1] - middle + middle[reach]
        figures[f"{name}: beyond a sum of x and y"] = analysis.error(joint).largest
        figures[f"{name}: least along an axis"] = float(min(middle.min(), kernel[:, reach].min()))
        figures[f"{name}: at (1, -1)"] = float(kernel[reach + 1, reach - 1])
    says = (
        "Axial scores are a function of x plus one of y (to "
        f"{figures['axial: beyond a sum of x and y']:.1g}), so they make a cross that is at least "
        f"{figures['axial: least along an axis']:.2f} along both axes; mixed ones are not (off by up to "
        f"{figures['mixed: beyond a sum of x and y']:.2f}). Flattened positions give the neighbour at (1, −1) "
        f"{figures['flattened x + y: at (1, -1)']:.3f}: they cannot tell it from the cell itself."
    )
    law = "(1/F) Σ_i cos(x θ_xi + y θ_yi)"
    return Section("images", "What does a cell of an image see?", law, says, png(figure), figures)


def groups(c: ReportConfig) -> Section:
    # Pairs of dimensions turn by themselves, so a small head shows what a large one does.
    theta = image_frequencies(c, min(c.size, 32))
    by = {name: analysis.generators(x) for name, x in theta.items()} | {"quaternion": analysis.QUATERNION}
    rng, cells = np.random.default_rng(c.seed), np.asarray(grid(c.side, c.side))
    draws = rng.uniform(-1, 1, (2, 8, 2))
    off = {name: [analysis.group_error(x, *draws * reach).largest for reach in RANGES] for name, x in by.items()}
    found = {x: analysis.recover(analysis.turns(cells, t), t, cells) == np.arange(len(cells)) for x, t in theta.items()}
    shares = {name: float(hit.mean()) for name, hit in found.items()}
    figure, (left, right) = panels(1.2, 1)
    curves = {name: np.maximum(x, 1e-18) for name, x in off.items()}
    what = "largest |R(p)ᵀ R(q) − R(q − p)|"
    lines(left, np.array(RANGES), curves, title=what, xlabel="coordinates up to", xlog=True, ylog=True)
    bars = right.barh(list(shares), [100 * x for x in shares.values()], color=["C0", "C1", "C2"], height=0.55)
    right.bar_label(bars, [f"{100 * x:.3g} %" for x in shares.values()], padding=3)
    right.set(title=f"cells of {c.side} × {c.side} told by their rotation", xlabel="%", xlim=(0, 118))
    right.invert_yaxis()
    figures = {f"{name}: commutator": analysis.commutator(x) for name, x in by.items()}
    figures |= {f"{name}: group law, largest error": max(x) for name, x in off.items()}
    figures |= {f"{name}: share of cells recovered": x for name, x in shares.items()}
    says = (
        f"The generators of axial and mixed positions commute (to {figures['axial: commutator']:.1g} and "
        f"{figures['mixed: commutator']:.1g}) and a score is one of the difference to "
        f"{figures['axial: group law, largest error']:.1g} and {figures['mixed: group law, largest error']:.1g}. "
        f"Those of quaternions do not ({figures['quaternion: commutator']:.1g}), and the law fails by "
        f"{figures['quaternion: group law, largest error']:.2g}. x + y keeps the law, but only "
        f"{100 * shares['flattened x + y']:.3g} % of the cells can be told from their rotation, against "
        f"{100 * shares['axial']:.3g} % (axial) and {100 * shares['mixed']:.3g} % (mixed)."
    )
    law = "R(x, y) = exp(x B_1 + y B_2); R(p)ᵀ R(q) = R(q − p) where B_1 B_2 = B_2 B_1"
    return Section(
        "groups", "Do two axes turn as one does, and can a cell be found again?", law, says, png(figure), figures
    )
