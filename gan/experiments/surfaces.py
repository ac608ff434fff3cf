"""Critics over the plane: heights and directions, beside the optimal ones where they are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gan.critic import Shape, slope
from gan.laws import TOYS, Law, toy
from gan.named import check_critics, critic_of_name, file_name, law_of
from gan.objectives import CRITICS
from gan.training import train
from training.experiment.cells import Made, experiment, run_cells
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.files.buckets import disk_path
from training.files.images import read_images
from training.ranges import check_lists, check_ranges
from training.telling import tell

SIDE = 60  # points a side of a surface


@dataclass(frozen=True, kw_only=True)
class SurfacesConfig:
    """Draw critics trained on laws in the plane: contours of f, and the direction of its gradient."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for."""
    folder: str = "runs/wgan/surfaces"
    """Where everything goes; report.html is the result."""
    laws: tuple[str, ...] = ("funnels:2:4", "8gaussians")
    """funnels:2:N, another law of two dimensions, or 8gaussians, 25gaussians, swissroll:
    those against themselves with noise."""
    critics: tuple[str, ...] = ("wc", "gp", "ortho")
    """Critics; docs/wgan.md says what each is."""
    steps: int = 300
    """Updates of each critic."""
    batch: int = 256
    """Points of an update."""

    def __post_init__(self):
        check_ranges(self, steps=1, batch=(2, 1 << 20))
        check_lists(self, laws=None)
        check_critics(self, [name for name in CRITICS if name != "exact"])


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {
        "laws": ("funnels:2:4", "8gaussians", "25gaussians", "swissroll"),
        "critics": ("wc", "gp", "lp", "sn", "ortho", "c", "cow", "mm"),
        "steps": 2_000,
    },
    "full": {
        "laws": ("funnels:2:4", "funnels:2:64", "8gaussians", "25gaussians", "swissroll"),
        "critics": tuple(name for name in CRITICS if name != "exact"),
        "steps": 20_000,
        "batch": 1024,
    },
}


def surfaces(config: SurfacesConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises ValueError for settings that cannot be."""
    folder = disk_path(config.folder, "--folder")
    laws = {name: toy(name) if name in TOYS else law_of(name, lambda: read_images(None)) for name in config.laws}
    if wrong := [name for name, law in laws.items() if law.dimensions != 2]:
        raise ValueError(f"law {wrong[0]!r}: a surface needs one of two dimensions")
    axis = {name: np.linspace(*_extent(law), SIDE) for name, law in laws.items()}

    def measure(cell: tuple[str, str]) -> dict[str, Any]:
        law, critic = laws[cell[0]], critic_of_name(cell[1])(Shape(size=2))
        *_, (reading, state) = train(critic, law, steps=config.steps, batch=config.batch, seeds=1, chunk=config.steps)
        if not np.isfinite(reading.kr).all():
            return {"law": cell[0], "critic": cell[1], "stopped": reading.step, "truth": law.w1}
        points = jnp.asarray(np.stack(np.meshgrid(axis[cell[0]], axis[cell[0]]), -1).reshape(-1, 2), jnp.float32)
        f = critic.of(jax.tree.map(lambda x: x[0], state))
        steep = jnp.linalg.norm(jax.jit(lambda x: slope(f, x))(points), axis=1)
        heights = np.asarray(f(points)).round(5).tolist()
        return {
            "law": cell[0],
            "critic": cell[1],
            "heights": heights,
            "steep": float(steep.mean()),
            "kr": float(reading.kr[0]),
            "cosine": float(reading.cosine[0]) if law.gradient else None,
            "truth": law.w1,
        }

    with experiment(folder, {}):  # a cell's name says what it is made with
        tail = f"{config.steps}-{config.batch}"
        wanted = {
            f"{file_name(law)}-{critic.replace(':', '-')}-{tail}": (law, critic)
            for law, critic in product(laws, config.critics)
        }
        made = run_cells(folder, wanted, measure, "critic", lambda row: {"law", "critic", "truth"} <= row.keys())
        tell(report(folder, made, laws, axis, config))
        made.complete()


def report(
    folder: Path,
    made: Made,
    laws: Mapping[str, Law],
    axis: Mapping[str, np.ndarray],
    config: SurfacesConfig,
) -> str:
    """surfaces.md, .csv, .json and report.html; returns the tables."""
    cells = [*made.cells.values()]
    of_laws = {name: [c for c in cells if c["law"] == name] for name in laws}
    columns, settings = ("law", "critic", "kr", "truth", "steep", "cosine"), shown_settings(config)
    return write_report(
        folder,
        "surfaces",
        "Critics over the plane",
        [_section(name, laws[name], axis[name], its) for name, its in of_laws.items() if its],
        settings,
        lead=f"{len(cells)} critics of one seed each, so there are no intervals.",
        columns=columns,
        rows=([cell.get(name) for name in columns] for cell in cells),
        json={"settings": settings, "cells": cells},
        missing=made.missing,
    )


def _section(name: str, law: Law, axis: np.ndarray, cells: Sequence[Mapping[str, Any]]) -> Section:
    fine = {c["critic"]: c for c in cells if "stopped" not in c}
    heights = {critic: np.array(c["heights"]).reshape(SIDE, SIDE) for critic, c in fine.items()}
    if law.potential is not None:
        plane = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), jnp.float32)
        heights = {"optimal": np.asarray(law.potential(plane)).reshape(SIDE, SIDE)} | heights
    rows = [
        [critic, decimals(c["kr"]), decimals(c["truth"]) or "unknown", decimals(c["steep"]), decimals(c["cosine"])]
        for critic, c in fine.items()
    ]  # fmt: skip
    rows += [[c["critic"], f"no number at step {c['stopped']}", "", "", ""] for c in cells if "stopped" in c]
    return Section(
        file_name(name),
        name,
        "f, high on P and low on Q",
        "Contours are of equal height; dots are points of P (blue) and Q (orange). An optimal f is of slope 1 along "
        "the rays on which mass moves.",
        _planes(law, axis, heights) if heights else None,
        table=Table(("critic", "estimate", "truth", "mean slope", "cosine"), rows),
    )


def _extent(law: Law) -> tuple[float, float]:
    drawn = np.concatenate([np.asarray(z) for z in law.sample(jax.random.key(0), 2000)])
    far = float(np.quantile(np.abs(drawn), 0.995))
    return -1.1 * far, 1.1 * far


def _planes(law: Law, axis: np.ndarray, heights: Mapping[str, np.ndarray]) -> bytes:
    from matplotlib.figure import Figure

    columns = min(4, len(heights))
    rows = -(-len(heights) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.2 * rows), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in panels:
        axes.axis("off")
    x, y = (np.asarray(z) for z in law.sample(jax.random.key(1), 200))
    for axes, (name, height) in zip(panels, heights.items(), strict=False):
        axes.contourf(axis, axis, height, 24, cmap="viridis")
        axes.contour(axis, axis, height, 12, colors="k", linewidths=0.4)
        for points, color in ((y, "tab:orange"), (x, "tab:cyan")):
            axes.plot(*points.T, ".", color=color, markersize=2)
        axes.set(title=name, aspect="equal", xlim=axis[[0, -1]], ylim=axis[[0, -1]])
    return png(figure)
