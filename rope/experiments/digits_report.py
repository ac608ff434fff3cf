"""What the cells of the digits experiment say: a row for each, tables with intervals, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.experiment.cells import Made
from training.experiment.page import Section, Table
from training.experiment.report import png, seeds_told, write_report
from training.experiment.statistics import Estimate, Runs, differences, estimate, over_seeds

Figures = Mapping[tuple[str, str], Runs]  # (encoding, condition) -> the part of each test image read right
SHOWN = 6  # images of a condition in the picture


def report(
    folder: Path,
    made: Made,
    positions: Sequence[str],
    examples: Mapping[str, np.ndarray],
    note: str,
    settings: Mapping[str, Any],
) -> str:
    """digits.csv, .json, .md, .png and report.html in `folder`, of the cells' files; returns the tables.

    positions: the encodings in order, of which the first is compared with each of the others over the seeds that both
    have. examples: for each condition some images [n, H, W, channels]. note: a line on the data. settings: of the page.
    """
    cells, first = [*made.cells.values()], positions[0]
    names, figures = [*cells[0]["scores"]], _figures(cells, positions)
    found = {key: estimate(over_seeds(runs)) for key, runs in figures.items()}
    pairs = {(x, c): differences(figures.get((first, c), {}), runs) for (x, c), runs in figures.items() if x != first}
    less = {key: estimate(values) for key, values in pairs.items() if values.size}
    sections = [
        Section(
            "digits",
            "Read right, by what is done to the images",
            says="Some images of each condition; below, each encoding's mean and interval, and a dot a seed.",
            picture=_picture(figures, found, examples),
            table=_table(
                found,
                "",
                f"Read right, in percent: mean of {seeds_told(figures.values())} and the test images [95 % interval]",
            ),
        )
    ]
    if less:
        caption = (
            f"{first} less the others, seed by seed and image by image: better where all of the interval is above 0"
        )
        sections.append(Section("differences", f"{first} beside the others", table=_table(less, "+", caption)))
    json_rows = [
        {"positions": x, "condition": c, **value._asdict(), "less": less[x, c]._asdict() if (x, c) in less else None}
        for (x, c), value in found.items()
    ]
    return write_report(
        folder,
        "digits",
        "Which positions read images where they never saw them?",
        sections,
        settings,
        lead=f"{len(cells)} models; intervals are of 95 %, by a bootstrap of seeds and test images.",
        columns=["positions", "seed", *names, "valid", "loss"],
        rows=(_row(cell, names) for cell in cells),
        json={"data": note, "seeds": max(map(len, figures.values())), "first": first, "rows": json_rows},
        notes=[note],
        missing=made.missing,
    )


def _figures(cells: Sequence[Mapping[str, Any]], positions: Sequence[str]) -> Figures:
    figures: dict[tuple[str, str], dict[int, Sequence[float]]] = {}
    for cell in sorted(cells, key=lambda cell: positions.index(cell["positions"])):
        for condition, values in cell["scores"].items():
            figures.setdefault((cell["positions"], condition), {})[cell["seed"]] = values
    return figures


def _row(cell: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    means = (f"{np.mean(x):.5f}" for x in (*map(cell["scores"].get, names), cell["valid"], cell["loss"]))
    return [cell["positions"], cell["seed"], *means]


def _table(found: Mapping[tuple[str, str], Estimate], sign: str, caption: str) -> Table:
    encodings, names = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    percent = {key: Estimate(*(100 * value for value in x)).text(1, sign) for key, x in found.items()}
    rows = [[e, *(percent[e, name] for name in names)] for e in encodings]
    return Table(["positions", *names], rows, caption=caption)


def _picture(figures: Figures, found: Mapping[tuple[str, str], Estimate], examples: Mapping[str, np.ndarray]) -> bytes:
    """A panel a condition: some of its images, below them each encoding's mean and interval, and a dot a seed."""
    from matplotlib.figure import Figure

    encodings, names = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    figure = Figure(figsize=(1 + 1.7 * len(names), 4.6), layout="constrained")
    shape = {"height_ratios": [1, 3.2]}
    above, below = figure.subplots(2, len(names), sharey="row", squeeze=False, gridspec_kw=shape)
    for panel, axes, name in zip(above, below, names, strict=True):
        images = examples[name][:SHOWN]
        panel.imshow(_strip(images), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        panel.set_title(name.replace(", ", ",\n"), fontsize=10)
        panel.axis("off")
        for number, encoding in enumerate(encodings):
            mean, low, high = (100 * x for x in found[encoding, name])
            seeds = 100 * over_seeds(figures[encoding, name]).mean(1)
            color = f"C{number}"
            axes.plot(number + np.linspace(-0.2, 0.2, len(seeds)), seeds, "o", color=color, markersize=3, alpha=0.5)
            axes.errorbar([number], [mean], [[mean - low], [high - mean]], fmt="_", color=color, markersize=12, lw=2)
        axes.set_xticks(range(len(encodings)), encodings, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(encodings) - 0.4)
        axes.grid(axis="y", alpha=0.3)
    below[0].set_ylabel("read right, %")
    return png(figure)


def _strip(images: np.ndarray) -> np.ndarray:
    """Images [n, H, W, channels] side by side in grey, framed, in two rows."""
    grey = np.pad(images.mean(-1), ((0, 0), (1, 1), (1, 1)), constant_values=0.4)
    half = len(grey) // 2 or 1
    return np.concatenate(
        [np.concatenate([*grey[i : i + half]], 1) for i in range(0, half * (len(grey) // half), half)]
    )
