"""The report's section on which encodings of two coordinates keep the law of differences (rope/report/report.py)."""

import jax
import jax.numpy as jnp
import numpy as np

from rope.positions.angles import axial_frequencies, grid, mixed_frequencies
from rope.positions.blocks import BlockRotation, turn_blocks
from rope.positions.golden import golden_frequencies
from rope.positions.lie import lie_parameters, lie_rotation
from rope.positions.rotary import Rotation, rotate, rotation
from rope.positions.sections import section_frequencies
from rope.positions.spherical import spherical_frequencies, spherical_rotation
from rope.report.config import ReportConfig
from rope.report.plots import panels
from training.experiment.page import Section
from training.experiment.report import png

SHIFTS = {"down": (2.5, 0), "across": (0, 2.5), "both": (2.5, -1.25)}  # row, column


def turned(name: str, places: np.ndarray, size: int, c: ReportConfig) -> Rotation | BlockRotation:
    """The rotation of one head of places [T, 2] by an encoding."""
    p, key = jnp.asarray(places, jnp.float32), jax.random.key(c.seed)
    match name:
        case "axial":
            return rotation(p, axial_frequencies(size, 2, c.theta))
        case "mixed":
            return rotation(p, mixed_frequencies(key, 1, size, 2, c.mixed_theta))
        case "golden":
            return rotation(p, golden_frequencies(1, size, 2, c.mixed_theta))
        case "sections":
            return rotation(p, section_frequencies(size, (size // 2 - size // 4, size // 4), c.theta, interleaved=True))
        case "spherical":
            return spherical_rotation(p, spherical_frequencies(size, c.mixed_theta))
    return lie_rotation(p, lie_parameters(key, 1, size))


def matrices(name: str, places: np.ndarray, size: int, c: ReportConfig) -> np.ndarray:
    """R of places [T, 2], as the code turns: [T, H, H]."""
    by = turned(name, places, size, c)
    unit = jnp.broadcast_to(jnp.eye(size)[:, None, None], (size, len(places), 1, size))
    x = turn_blocks(unit, by) if isinstance(by, BlockRotation) else rotate(unit, by)
    return np.moveaxis(np.asarray(x[:, :, 0], np.float64), 0, -1)


def laws(c: ReportConfig) -> Section:
    names = [x for x in ("axial", "mixed", "golden", "sections", "spherical", "lie") if x in c.encodings]
    size, cells = min(c.size, 24), np.asarray(grid(c.side, c.side), np.float64)

    def products(name: str, shift: tuple[float, float]) -> np.ndarray:
        """R(p)^T R(q) of all cells p with the first and the last: [T, 2, H, H]."""
        found = matrices(name, cells + shift, size, c)
        return found.swapaxes(-1, -2)[:, None] @ found[[0, -1]]

    off = {
        name: {way: float(np.abs(products(name, s) - products(name, (0, 0))).max()) for way, s in SHIFTS.items()}
        for name in names
    }
    nearest = {}
    for name in names:
        flat = matrices(name, cells, size, c).reshape(len(cells), -1)
        apart = np.sqrt(np.maximum(0, (flat**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * flat @ flat.T))
        nearest[name] = float((apart + np.diag(np.full(len(cells), np.inf))).min())
    figure, (left, right) = panels(1.4, 1)
    for number, way in enumerate(SHIFTS):
        heights = [max(off[name][way], 1e-9) for name in names]
        left.bar(np.arange(len(names)) + 0.27 * (number - 1), heights, width=0.25, label=way)
    left.set(title="change of R(p)ᵀ R(q) when both move", yscale="log")
    left.set_xticks(range(len(names)), names)
    left.legend(fontsize="small")
    right.bar(names, [nearest[name] for name in names], width=0.55)
    right.set(title="the two nearest cells' |R(p) − R(q)|")
    figures = {f"{name}, {way}": x for name, of in off.items() for way, x in of.items()}
    figures |= {f"{name}: nearest cells": x for name, x in nearest.items()}
    says = (
        f"When all cells of {c.side} × {c.side} move down, across, or both, R(p)ᵀ R(q) changes by at most: "
        + "; ".join(f"{name} {', '.join(f'{x:.1g}' for x in of.values())}" for name, of in off.items())
        + ". Pairs of dimensions that turn by an angle keep the law; spheres keep it down alone, and generators that "
        "do not commute keep it nowhere. The nearest two cells are "
        + ", ".join(f"{x:.2g} ({name})" for name, x in nearest.items())
        + " apart."
    )
    law = "R(p + s)ᵀ R(q + s) = R(p)ᵀ R(q) for every s"
    return Section("laws", "Who sees differences of two coordinates alone?", law, says, png(figure), figures)
