"""What do critics say of two laws that stay as they are, and what is true?

A cell is one (law, critic) with all its seeds. A seed decides the initial weights and every draw;
the points that are scored are other draws.
"""

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gan.critic import Critic, Shape
from gan.estimate import Reading, minibatch_w1, train
from gan.experiments.pictures import Panel, slopes
from gan.laws import OF_IMAGES, Law, file_name, law_of
from gan.named import check_critics, critic_of_name
from gan.objectives import CRITICS
from training.experiment.cells import Made, experiment, run_cells
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.experiment.statistics import Estimate, estimate_runs
from training.files.buckets import disk_path
from training.files.images import fingerprint, read_images
from training.ranges import check_choices, check_lists, check_ranges
from training.telling import tell

# Of the published benchmark (Korotin, Kolesov, Burnaev 2022, arXiv 2206.07767, and its notebooks);
# c-soft, c-debiased, aol and sll have none there.
PUBLISHED_STEPS = {
    "wc": 5_000, "gp": 60_000, "lp": 60_000, "sn": 10_000, "sn-detached": 10_000, "ortho": 25_000, "ls": 10_000,
    "aol": 25_000, "sll": 25_000,
    "c": 25_000, "c-soft": 25_000, "c-debiased": 25_000, "cow": 25_000, "mm": 20_000, "mm-reverse": 20_000, "exact": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StaticConfig:
    """Train critics on laws that stay as they are, and set what they say beside the truth; the same command goes on.

    Laws: shift:D, scale:D, shells:D, point:D (against a sphere), mixture (on a line), null:D
    (shells in 2 of D dimensions), funnels:D:N (the published benchmark), squares:SIDE, classes and halves (of --data),
    files:P.npy:Q.npy (points of two files, or of text, a point a line).
    """

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for: under a minute, minutes on a laptop,
    or the published benchmark's grid and steps."""
    data: str | None = None
    """Images of the laws classes and halves. None: scikit-learn's digits;
    else MNIST's files, pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/static"
    """Where everything goes; report.html is the result, and static.md, .csv and .json."""
    laws: tuple[str, ...] = ("scale:2",)
    """Pairs of laws, see above."""
    critics: tuple[str, ...] = ("wc", "gp", "ortho", "c")
    """Critics; ortho, aol, sll, sn and sn-detached are certified, docs/wgan.md says what each is. With settings:
    gp:weight=1 c-soft:epsilon=1:rate=1e-3."""
    steps: int = 300
    """Updates of each critic; 0: as many as the published benchmark gave it."""
    batch: int = 256
    """Points of P, and of Q, of an update."""
    network: Literal["fc", "conv"] = "fc"
    """Fully connected critics, or convolutional ones, which laws of images can have: squares, classes, halves."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers; () is two of max(2 D, 128), or 64, 128, 256 features of convolutions of stride 2."""
    seeds: int = 3
    """Independent repeats."""
    readings: int = 5
    """Times that a critic is asked on its way."""
    scored: int = 4096
    """Points that it is then asked about."""
    linear_decay: bool = False
    """Updates shrink to nothing by the last step,
    which settles critics that constant ones keep moving about their best."""

    def __post_init__(self):
        check_ranges(self, steps=0, batch=(2, 1 << 20), seeds=(1, 1001), readings=(1, 10_001), scored=(2, 1 << 20))
        check_choices(self)
        check_lists(self, laws=None)
        check_critics(self)
        if self.hidden:
            check_lists(self, repeated=True, hidden=range(1, (1 << 14) + 1))


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {
        "laws": ("shift:16", "scale:16", "shells:2", "mixture", "classes", "funnels:2:4", "funnels:16:4"),
        "critics": ("wc", "gp", "lp", "sn", "ortho", "ls", "c", "cow", "exact"),
        "steps": 1_000,
        "readings": 10,
    },
    "full": {
        "laws": tuple(f"funnels:{d}:{n}" for d in (2, 4, 8, 16, 32, 64, 128) for n in (4, 16, 64, 256)),
        "critics": tuple(CRITICS),
        "steps": 0,
        "batch": 1024,
        "readings": 20,
    },
}  # fmt: skip


def static(config: StaticConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`.
    Raises ValueError for data or settings that cannot be."""
    images, folder = cache(partial(read_images, config.data)), disk_path(config.folder, "--folder")
    laws = {name: law_of(name, images) for name in config.laws}
    made = {(law, critic): critic_for(laws[law], law, critic, config) for law in laws for critic in config.critics}
    free = ("folder", "preset", "laws", "critics", "data")
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    if {*OF_IMAGES} & {*laws}:
        settings["images"] = fingerprint(images())
    with experiment(folder, settings):
        cells = {f"{file_name(law)}-{critic.replace(':', '-')}": (law, critic) for law, critic in made}
        found = run_cells(
            folder,
            cells,
            lambda cell: measure(laws[cell[0]], made[cell], *cell, config),
            "critic",
            lambda row: "constraint" in row,
        )
        tell(report(folder, found, config))
        found.complete()


def critic_for(law: Law, name: str, critic: str, config: StaticConfig) -> Critic:
    """Raises ValueError where the law's points are no images for convolutions, or the critic cannot be so."""
    if config.network == "conv" and law.image is None:
        raise ValueError(f"law {name!r}: no images, so --network conv is not for it, but for squares, classes, halves")
    image = law.image if config.network == "conv" else None
    made = critic_of_name(critic)(Shape(size=law.dimensions, hidden=config.hidden, image=image))
    jax.eval_shape(made.init, jax.random.key(0))  # refused now, and not after the cells before it
    return made


def measure(law: Law, made: Critic, name: str, critic: str, config: StaticConfig) -> dict[str, Any]:
    """One cell: what the critic says on its way, and the exact distances of batches of its size."""
    if made.metric != "l2" and law.dimensions > 1:  # what is known is Euclidean
        law = replace(law, w1=None, gradient=None, potential=None)
    begin = time.perf_counter()
    steps = config.steps or PUBLISHED_STEPS[critic.partition(":")[0]]
    chunk = -(-steps // config.readings)
    readings: Iterator[tuple[Reading, Any]] = train(
        made,
        law,
        steps=steps,
        batch=config.batch,
        seeds=config.seeds,
        chunk=chunk,
        scored=config.scored,
        linear_decay=config.linear_decay,
    )
    curve = [{k: _plain(v) for k, v in asdict(reading).items()} for reading, _ in readings]
    parts = [entry.pop("slopes") for entry in curve][-1]
    seconds = time.perf_counter() - begin
    return {
        "law": name,
        "critic": critic,
        "constraint": made.constraint,
        "dimensions": law.dimensions,
        "batch": config.batch,
        "truth": law.w1,
        "minibatch": minibatch_w1(law, config.batch, metric=made.metric).tolist(),
        "steps": curve[-1]["step"],
        "asked": steps,
        "seconds": seconds,
        "curve": [entry for entry in curve if None not in entry["kr"]],
        "last": {k: v for k, v in curve[-1].items() if k != "step"},
        "slopes": parts,
    }


def _plain(values: int | np.ndarray) -> Any:
    """As JSON has it, which knows no NaN."""
    if isinstance(values, int):
        return values
    known = values.astype(object)
    known[~np.isfinite(values)] = None
    return known.tolist()


def report(folder: Path, made: Made, config: StaticConfig) -> str:
    """static.md, .csv, .json and report.html; returns the tables."""
    cells = [*made.cells.values()]
    sections = []
    for name in config.laws:
        if not (its := [c for c in cells if c["law"] == name]):
            continue
        its.sort(key=lambda c: c["truth"] is None)  # critics of another metric last
        truth = its[0]["truth"]
        known = "unknown" if truth is None else f"{truth:.4g}"
        panel = Panel(
            title=f"{name}, {its[0]['dimensions']} dimensions",
            curves={c["critic"]: [(e["step"], estimate_runs(e["kr"])) for e in c["curve"]] for c in its},
            lines={"of the laws": truth, f"of batches of {config.batch}, exactly": float(np.mean(its[0]["minibatch"]))},
            label="mean f(x) - mean f(y)",
        )
        sections.append(
            Section(
                file_name(name),
                f"{name}: W1 {known}",
                "W1(P, Q) = max E f(x) - E f(y) over 1-Lipschitz f",
                f"The laws are {known} apart, batches of {config.batch} points {np.mean(its[0]['minibatch']):.4g}: a "
                "critic that approaches the second is accurate of the batch, not of the laws.",
                panel.picture(),
                table=Table(HEADS, [_row(cell) for cell in its]),
            )
        )
        parts = {c["critic"]: c["slopes"] for c in its if c.get("slopes") and None not in np.ravel(c["slopes"])}
        sections.append(
            Section(
                f"{file_name(name)}-slopes",
                f"{name}: how steep the critics are, and how long they took",
                "|grad f| is at most 1, and 1 along the optimal plan's rays",
                "Gradients at points of P, of Q and between them, after the last step, all seeds; the last bar has all "
                "that is steeper. Seconds are of all seeds, with compilation and readings.",
                slopes(parts, {c["critic"]: c["seconds"] for c in its}),
            )
        )
    if compared := list(_beside_published(cells)):
        sections.append(
            Section(
                "published",
                "Beside the published single runs",
                "cosine of a critic's gradient with the optimal one, mean over points of P",
                f"After {config.steps or 'as many'} steps of ours; published: Korotin, Kolesov, Burnaev 2022, one "
                "seed. Its SN takes no gradient through the norm: the row sn-detached.",
                _heatmap(compared),
                table=Table(("law", "critic", "cosine", "published", "estimate / W1", "published"), compared),
            )
        )
    settings = shown_settings(config)
    return write_report(
        folder,
        "static",
        "What critics say of W1",
        sections,
        settings,
        lead=f"{len(cells)} cells; intervals are of 95 %, by Student's t over seeds.",
        columns=COLUMNS,
        rows=chain.from_iterable(map(_line, cells)),
        json={"settings": settings, "cells": cells},
        missing=made.missing,
    )


HEADS = (
    "critic", "estimate", "of the truth", "own objective", "exact, batch", "truth", "steepest",
    "cosine", "L2 error", "constraint", "steps", "n", "seeds",
)  # fmt: skip
COLUMNS = (
    "law",
    "critic",
    "seed",
    "kr",
    "objective",
    "minibatch",
    "truth",
    "best",
    "steepest",
    "cosine",
    "l2",
    "bound",
    "constraint",
    "steps",
    "seconds",
)


def _told(cell: Mapping[str, Any], name: str) -> Estimate | None:
    values = np.array(cell["last"].get(name, [None]), float)  # a cell of before may lack one
    return estimate_runs(values) if np.isfinite(values).all() else None


def _share(cell: Mapping[str, Any]) -> str:
    """What the critic says over what the optimal one says of the same points, in which their sampling cancels; where
    that is not known, over the laws' distance."""
    kr, best = (np.array(cell["last"][name], float) for name in ("kr", "best"))
    if not cell["truth"] or not np.isfinite(kr).all():
        return ""
    return estimate_runs(kr / np.where(np.isfinite(best), best, cell["truth"])).text(3)


def _row(cell: Mapping[str, Any]) -> list[str]:
    kr, truth, exact = _told(cell, "kr"), cell["truth"], float(np.mean(cell["minibatch"]))
    stopped = f"no number at step {cell['steps']}"
    return [
        cell["critic"],
        kr.text(3) if kr else stopped,
        _share(cell),
        decimals(_told(cell, "objective")) or ("not converged" if kr else ""),
        f"{exact:.3f}",
        f"{truth:.3f}" if truth is not None else "unknown",
        decimals(_told(cell, "steepest")),
        decimals(_told(cell, "cosine")),
        decimals(_told(cell, "l2")),
        cell["constraint"],
        f"{cell['steps']:,}",
        f"{cell['batch']}",
        f"{len(cell['last']['kr'])}",
    ]


def _line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
    last, mean = cell["last"], float(np.mean(cell["minibatch"]))
    rest = (cell["constraint"], cell["steps"], round(cell["seconds"], 1))
    for seed in range(len(last["kr"])):
        kr, objective, *others = (
            last.get(m, {seed: None})[seed] for m in ("kr", "objective", "best", "steepest", "cosine", "l2", "bound")
        )
        yield [cell["law"], cell["critic"], seed, kr, objective, mean, cell["truth"], *others, *rest]


@cache
def published() -> dict[tuple[str, str], tuple[float, float]]:
    """(law, critic) -> (estimate over the truth, cosine) of the published benchmark."""
    with open(Path(__file__).parent.parent / "benchmark" / "published.csv") as file:
        rows = list(csv.DictReader(file))
    truth = {(r["dimensions"], r["funnels"]): float(r["w1"]) for r in rows if r["critic"] == "truth"}
    return {
        (f"funnels:{d}:{n}", r["critic"]): (float(r["w1"]) / truth[d, n], float(r["cosine"]))
        for r in rows
        for d, n in [(r["dimensions"], r["funnels"])]
    }


def _beside_published(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for cell in cells:
        kr, cosine = _told(cell, "kr"), _told(cell, "cosine")
        if (key := (cell["law"], cell["critic"])) in published() and kr and cosine:
            ratio, theirs = published()[key]
            yield [*key, cosine.text(2), f"{theirs:.2f}", f"{kr.mean / cell['truth']:.2f}", f"{ratio:.2f}"]


def _heatmap(rows: Sequence[Sequence[str]]) -> bytes:
    """Cosines: our mean above, the published one below."""
    from matplotlib.figure import Figure

    laws, critics = (list(dict.fromkeys(row[i] for row in rows)) for i in (0, 1))
    ours, theirs = (np.full((len(critics), len(laws)), np.nan) for _ in range(2))
    for law, critic, cosine, other, *_ in rows:
        at = critics.index(critic), laws.index(law)
        ours[at], theirs[at] = float(cosine.split()[0]), float(other)
    figure = Figure(figsize=(2.5 + 0.75 * len(laws), 1.2 + 0.5 * len(critics)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(ours, cmap="RdYlBu", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(ours):
        if np.isfinite(value):
            text = f"{value:.2f}\n({theirs[row, column]:.2f})"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="k" if abs(value) < 0.75 else "w")
    axes.set_xticks(range(len(laws)), [law.removeprefix("funnels:") for law in laws], rotation=45)
    axes.set_yticks(range(len(critics)), critics)
    axes.set_xlabel("dimensions : funnels")
    figure.colorbar(shown, label="cosine, ours (published)")
    return png(figure)
