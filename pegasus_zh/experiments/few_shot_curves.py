"""When does a pretraining begin to look at its source? The source gain by updates, as a picture and a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.experiment.page import Section, Table
from training.experiment.report import png
from training.experiment.statistics import estimate_runs

GAIN = "eval_gain_"  # before a probe's name, in the rows of a run's metrics
Points = Mapping[str, Sequence[tuple[int, float]]]  # probe -> (update, source gain)


def points_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Of a run's metrics; of an evaluation made twice, after a kill, the last."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(GAIN):
                found.setdefault(name.removeprefix(GAIN), {})[row["step"]] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def curve_sections(runs: Mapping[tuple[str, int], Points]) -> list[Section]:
    """Of runs by (objective, seed); none where no run has told a gain."""
    runs = {key: points for key, points in runs.items() if points}
    if not runs:
        return []
    objectives = list(dict.fromkeys(objective for objective, _ in runs))
    probes = list(dict.fromkeys(probe for points in runs.values() for probe in points))
    of = lambda objective, probe: [x[probe] for (name, _), x in runs.items() if name == objective and probe in x]  # noqa: E731
    lines = []
    for objective in objectives:
        ends = [[points[-1][1] for points in of(objective, probe)] for probe in probes]
        lines.append([objective, *(estimate_runs(found).text(3) if found else "" for found in ends)])
    caption = (
        "Source gain at the end of the pretraining, in nats a token; mean of the seeds [95 % interval, of two or more]"
    )
    says = "A thin line a seed. At 0 the source is not looked at. copy: the source's own beginning is the target."
    table = Table(["objective", *probes], lines, caption=caption)
    return [
        Section(
            "source_gain_curves",
            "Source gain by updates of the pretraining",
            says=says,
            picture=_picture(objectives, probes, of),
            table=table,
        )
    ]


def _picture(objectives: Sequence[str], probes: Sequence[str], of: Any) -> bytes:
    """One panel a probe; a thin line a seed, a thick one their mean where all have the same updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(probes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(probes), squeeze=False)[0]
    for axes, probe in zip(panels, probes, strict=True):
        for number, objective in enumerate(objectives):
            found = [np.array(points).T for points in of(objective, probe)]
            for steps, values in found:
                axes.plot(steps, values, color=f"C{number}", linewidth=0.6, alpha=0.6)
            shared = sorted(set.intersection(*({*x[0]} for x in found))) if found else []
            mean = np.mean([[dict(zip(*x, strict=True))[step] for step in shared] for x in found], 0) if found else []
            axes.plot(shared, mean, color=f"C{number}", linewidth=1.8, label=objective)
        axes.axhline(0, color="0.4", linestyle="--", linewidth=1)
        axes.set(title=probe, xlabel="updates")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("source gain, nats a token")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(objectives), 5))
    return png(figure)
