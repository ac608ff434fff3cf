"""What the GANs of an experiment show: a table, accuracy against quality, curves on the way, and samples."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gan.experiments.pictures import Panel, grid
from gan.quality import Data, references
from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import decimals, png, shown_settings, write_report
from training.experiment.statistics import Estimate, estimate_runs
from training.files.errors import DataError

SHOWN = 64  # generated images that are kept
MEASURES = ("ratio", "objective", "exact", "held_out", "patches", "frechet", "precision", "recall", "coverage", "blur")
VARIED = ("network", "n_critic", "batch")
NOTES = (
    "ratio: the critic's own objective over the exact distance of the same minibatches; 1 is accurate.",
    "W1, held out: exact W1 in pixels to as many held-out images; lower is better, but averages are lowest. W1, "
    "patches: of 1,000 patches of each, wherever they are from; lower is better.",
    "Fréchet: of Gaussians of a small classifier's hidden units; lower is better. precision: the part of generated "
    "images near a real one; recall and coverage: of real images near a generated one; higher is better. blur: "
    "greyness; best that of real images.",
    "constraint: how f is kept 1-Lipschitz; certified: no weights make what is read steeper. steps' bound: what the "
    "slope of the f that steps are taken by was at most.",
)


def report(folder: Path, data: Data, made: Made, config: Any, question: str) -> str:
    """gans.md, .csv, .json and report.html; returns the tables."""
    every = [*made.cells.values()]
    varied = [name for name in VARIED if len(getattr(config, name)) > 1]
    label = lambda c: ", ".join([c["critic"], *(f"{name} {c[name]}" for name in varied)])  # noqa: E731
    cells = [c for c in every if c["stopped"] is None]
    found = {label(c): {m: estimate_runs(c["curve"][-1][m]) for m in MEASURES} for c in cells}
    known = references(data, config.patch, config.codes or 64)
    heads = (
        "critic",
        "ratio",
        "own objective",
        "exact, batch",
        "W1, held out",
        "W1, patches",
        "Fréchet",
        "precision",
        "recall",
        "coverage",
        "blur",
        "constraint",
        "steps' bound",
    )
    rows = [[label(c), *(decimals(found[label(c)][m]) for m in MEASURES), *_constraint(c)] for c in cells]
    rows += [[label(c), f"no number at step {c['stopped']}", *[""] * len(heads[2:])] for c in every if c["stopped"]]
    rows += [[name, "", "", "", *(decimals(m[k]) for k in MEASURES[3:]), "", ""] for name, m in known.items()]
    sections = [
        Section(
            "tradeoff",
            "Accuracy of the distance, and quality of the images",
            "ratio = the critic's own estimate / the exact distance of the same minibatch",
            "A dot is a seed, a cross a mean with its interval. W1 to held-out images is exact; that of the laws is "
            "unknown. The first three columns are of minibatches as training sees them, the others of images by the "
            "average of the generator's weights. A certified critic's estimate is read with its constraint made to "
            "hold; steps' bound is what the slope of the f that steps were taken by was at most, at any reading.",
            _scatter(cells, found, known, label),
            table=Table(heads, rows),
        )
    ]
    if varied and varied[-1] != "network":
        picture = _lines(cells, varied[-1], varied[:-1])
        sections.append(Section("varied", f"By {varied[-1]}", "the same runs", "Means and intervals.", picture))
    sections += [
        Section(
            f"curves-{n}",
            f"{name}: on the way",
            "estimate, exact minibatch, held out",
            f"Estimate over exact in the end: {found[name]['ratio'].text(2)}.",
            Panel(
                title=name,
                curves={
                    head: [(e["step"], estimate_runs(e[m])) for e in cell["curve"]]
                    for head, m in (
                        ("critic's estimate", "objective"),
                        ("exact, same minibatches", "exact"),
                        ("exact, held out", "held_out"),
                    )
                },
                lines={"real images, held out": known["real images"]["held_out"]},
                label="W1",
                limited=False,
            ).picture(),
        )
        for n, (name, cell) in enumerate(zip(found, cells, strict=True))
    ]
    sections.append(
        Section(
            "samples",
            "What the generators make",
            "of the first seed, after the last step",
            "Averages look soft and alike; held-out images are the first panel.",
            _samples(folder, data, cells, label),
        )
    )
    columns = ("critic", *VARIED, "seed", "step", "kr", *MEASURES, "bound")
    settings = shown_settings(config)
    return write_report(
        folder,
        "gans",
        question.capitalize(),
        sections,
        settings,
        lead=f"{len(every)} cells; intervals are of 95 %, by Student's t over seeds.",
        columns=columns,
        rows=chain.from_iterable(map(_line, every)),
        json={"settings": settings, "cells": every},
        notes=NOTES,
        missing=made.missing,
    )


def fits(cell: Mapping[str, Any]) -> bool:
    """Has a kept cell all that the report is of?"""
    whole = {"critic", "constraint", *VARIED, "stopped", "curve"} <= cell.keys()
    return whole and all({*MEASURES} <= entry.keys() for entry in cell["curve"])


def _constraint(cell: Mapping[str, Any]) -> list[str]:
    """Its word, and the largest bound of the slope at any reading and of any seed."""
    bounds = [bound for entry in cell["curve"] for bound in entry.get("bound", ())]
    return [cell["constraint"], f"{max(bounds):.3f}" if bounds else ""]


def samples_of(folder: Path, cell: Iterable[str | int]) -> Path:
    """The generated images of a (critic, network, n_critic, batch), beside its figures."""
    return folder / "cells" / f"{'-'.join(map(str, cell)).replace(':', '-')}.npz"


def _line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
    for entry in cell["curve"]:
        for seed in range(len(entry["kr"])):
            yield [
                *(cell[name] for name in ("critic", *VARIED)),
                seed,
                entry["step"],
                *(entry[m][seed] for m in ("kr", *MEASURES)),
                entry["bound"][seed] if "bound" in entry else "",
            ]


def _scatter(
    cells: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Estimate]],
    known: Mapping[str, Mapping[str, float]],
    label: Callable[[Mapping[str, Any]], str],
) -> bytes:
    from matplotlib.figure import Figure

    shown = {
        "frechet": "Fréchet distance",
        "precision": "precision",
        "recall": "recall",
        "coverage": "coverage",
        "blur": "blur",
        "held_out": "W1 to held-out images",
        "patches": "W1 of patches",
    }
    figure = Figure(figsize=(18, 7), layout="constrained")
    *every, spare = figure.subplots(2, 4).flat
    spare.axis("off")
    for axes, (measure, title) in zip(every, shown.items(), strict=True):
        for place, cell in enumerate(cells):
            name, last, color = label(cell), cell["curve"][-1], f"C{place % 10}"
            x, y = found[name]["ratio"], found[name][measure]
            axes.plot(last["ratio"], last[measure], ".", color=color, alpha=0.5)
            spans = [[[e.mean - e.low], [e.high - e.mean]] for e in (y, x)]
            marker = "x" if place < 10 else "+"
            axes.errorbar([x.mean], [y.mean], *spans, fmt=marker, color=color, label=name, markersize=8, capsize=2)
        for style, (name, values) in zip(("--", ":"), known.items(), strict=True):
            axes.axhline(values[measure], color="k", linestyle=style, linewidth=1, label=name)
        axes.axvline(1, color="0.7", linewidth=1)
        axes.set(xlabel="estimate / exact distance of the minibatch", title=title)
        axes.set_xlim(min(0, axes.get_xlim()[0]), max(1.2, axes.get_xlim()[1]))
        if measure in ("precision", "recall", "coverage"):
            axes.set_ylim(-0.05, 1.05)  # intervals of two seeds are wider than what can be
        axes.grid(alpha=0.3)
    figure.axes[0].set_yscale("log")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    return png(figure)


def _lines(cells: Sequence[Mapping[str, Any]], varied: str, others: Sequence[str]) -> bytes:
    from matplotlib.figure import Figure

    values = sorted({c[varied] for c in cells})
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (measure, title) in zip(
        figure.subplots(1, 3),
        (("ratio", "estimate / exact"), ("frechet", "Fréchet distance"), ("held_out", "W1, held out")),
        strict=True,
    ):
        curve = lambda c: ", ".join([c["critic"], *(f"{name} {c[name]}" for name in others)])  # noqa: E731
        for name in dict.fromkeys(map(curve, cells)):
            its = [c for c in cells if curve(c) == name]
            mean, low, high = np.array([estimate_runs(c["curve"][-1][measure]) for c in its]).T
            axes.errorbar([c[varied] for c in its], mean, [mean - low, high - mean], marker="o", capsize=2, label=name)
        axes.set(xlabel=varied, title=title, xscale="log")
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return png(figure)


def _samples(
    folder: Path, data: Data, cells: Sequence[Mapping[str, Any]], label: Callable[[Mapping[str, Any]], str]
) -> bytes:
    panels = {"held-out images": data.test[:SHOWN]}
    for cell in cells:
        path = samples_of(folder, (cell[name] for name in ("critic", *VARIED)))
        try:
            with np.load(path, allow_pickle=False) as file:
                panels[label(cell)] = file["images"][0] / 255
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            raise DataError(
                f"{path}: damaged or lost; delete the .json beside it, and the same command makes both"
            ) from None
    return grid(panels, data.image)
