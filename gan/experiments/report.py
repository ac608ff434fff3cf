"""How an experiment ends: tables printed and kept as Markdown, CSV and JSON, pictures, and one page with all of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.experiment.cells import Estimate, csv_text, markdown, png
from training.experiment.page import Section, page
from training.files.atomic import write_bytes, write_json


def number(value: Estimate | float | None, digits: int = 3) -> str:
    """A table's cell; "" where there is none."""
    if value is None:
        return ""
    return value.text(digits) if isinstance(value, Estimate) else f"{value:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Curves over steps, means with their intervals, and constants that are true whatever the step."""

    title: str
    curves: Mapping[str, Sequence[tuple[int, Estimate]]]
    lines: Mapping[str, float | None] = field(default_factory=dict)
    label: str = ""
    limited: bool = True
    """To heights near the constants: a critic that knows no scale does not hide the others."""

    def draw(self, axes) -> None:
        for place, (name, points) in enumerate(self.curves.items()):
            if not points:
                continue
            steps, (mean, low, high) = [step for step, _ in points], np.array([e for _, e in points]).T
            style = {"color": f"C{place % 10}", "linestyle": "-" if place < 10 else ":"}
            axes.plot(steps, mean, label=name, marker="o", markersize=3, **style)
            axes.fill_between(steps, low, high, alpha=0.15, color=style["color"])
        for dash, (name, value) in zip(("--", ":", "-."), self.lines.items(), strict=False):
            if value is not None:
                axes.axhline(value, color="k", linestyle=dash, linewidth=1, label=f"{name}: {value:.3g}")
        known = [value for value in self.lines.values() if value]
        if known and self.limited:
            axes.set_ylim(min(-0.1 * max(known), 0), 1.6 * max(known))
        axes.set(title=self.title, xlabel="steps", ylabel=self.label)
        axes.grid(alpha=0.3)

    def picture(self) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots()
        self.draw(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        return png(figure)


def write_report(
    folder: Path,
    name: str,
    title: str,
    sections: Sequence[Section],
    config: Any,
    cells: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str],
    line: Callable[[Mapping[str, Any]], Iterable[Sequence[Any]]],
    lead: str = "",
) -> str:
    """NAME.md, .csv and .json, PNGs and report.html in `folder`; returns the tables. line: a cell's rows in the CSV."""
    parts = [f"{s.title}\n{s.says}\n\n{markdown(s.table.heads, s.table.rows)}" for s in sections if s.table]
    tables = "\n\n".join(parts) + "\n"
    settings = {k: v for k, v in asdict(config).items() if not isinstance(v, dict)}
    lead = lead or f"{len(cells)} cells; intervals are of 95 %, by Student's t over seeds."
    for section in sections:
        write_bytes(folder / f"{section.name}.png", section.picture)
    write_bytes(folder / f"{name}.md", tables.encode())
    write_bytes(folder / f"{name}.csv", csv_text(columns, (row for cell in cells for row in line(cell))).encode())
    write_json(folder / f"{name}.json", {"settings": settings, "cells": list(cells)})
    write_bytes(folder / "report.html", page(title, lead, settings, sections).encode())
    return f"{tables}\n{folder / 'report.html'}: the same with pictures"
