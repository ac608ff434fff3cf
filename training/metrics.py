"""What a run tells: a JSONL file, TensorBoard files, a progress bar and a curve, and the speed they quote.

Speed: tokens per second counts real tokens, source and target, never padding. Model FLOPs utilisation is the model's
own count of FLOPs a second (its convention is stated where it is counted) over the devices' peak for dense products,
and is left out where that is not known.
"""

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tensorboardX import SummaryWriter
from tqdm import tqdm

from training.events import listeners
from training.files.atomic import atomic_write, read_objects, write_bytes
from training.files.grown import Grown
from training.peaks import peak
from training.program import HostBatch, Program
from training.telling import showing


@functools.cache
def peak_flops(kind: str) -> float | None:
    """FLOP/s of one device of this kind: of a CPU the best of a few float32 products timed here, of others that of
    training.peaks."""
    if kind != "cpu":
        return peak(kind)
    n, best = 1024, float("inf")
    with jax.set_mesh(jax.make_mesh((1,), ("alone",), devices=jax.local_devices()[:1])):
        x, product = jnp.ones((n, n), jnp.float32), jax.jit(jnp.matmul)
        for _ in range(6):  # the first compiles
            start = time.perf_counter()
            product(x, x).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


class Metrics:
    """Writes rows of numbers of one run to `metrics.jsonl` and TensorBoard files in `folder`; only process 0 writes."""

    def __init__(self, folder: Path, *, first_step: int):
        """Rows after `first_step`, and all if it is 0, are dropped: the run writes them again."""
        self._main, self._folder = jax.process_index() == 0, folder
        self._path = folder / "metrics.jsonl"
        if not self._main:
            return
        rows = [r for r in read_metrics(self._path) if r["step"] <= first_step] if first_step else []
        self._grown = Grown(folder)
        write_bytes(self._grown.here / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())
        self._file = (self._grown.here / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self._grown.here / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One row: the step and the values under their names."""
        if self._main:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._grown.send_now_and_then()
            for listener in listeners:
                listener(self._folder, {"step": step, **values})

    def send(self) -> None:
        """Of a run in a bucket: what was written is there then."""
        if self._main:
            self._board.flush()
            self._grown.send()

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._main:
            self._file.close()
            self._board.close()
            self._grown.send()


class Speed:
    """Tokens per second, padding and utilisation since the last row of metrics;
    pauses (evaluation, saving) left out."""

    def __init__(self, program: Program, batch_size: int, mesh: jax.sharding.Mesh, parts: int):
        """parts: of a batch, of which this process sees one."""
        self._count = program.count
        self._step_flops = program.flops_per_row * batch_size
        self._parts = parts
        device = mesh.devices.flat[0]
        self._peak = peak_flops(device.device_kind) if self._step_flops else None
        self._devices = 1 if device.platform == "cpu" else mesh.size  # fake ones share one processor
        self.pause()

    def add(self, host: HostBatch) -> None:
        self._steps += 1
        if self._count:
            tokens, positions = self._count(host)
            self._tokens += tokens * self._parts
            self._positions += positions * self._parts

    def pause(self) -> None:
        self._start = time.perf_counter()
        self._tokens = self._positions = self._steps = 0

    def values(self) -> dict[str, float]:
        seconds, steps = time.perf_counter() - self._start, self._steps
        values = {"steps_per_second": steps / seconds}
        if self._positions:
            tokens = self._tokens / seconds
            values |= {"tokens_per_second": tokens, "tokens_per_second_per_chip": tokens / self._devices}
            values["padding"] = 1 - self._tokens / self._positions
        if self._peak is not None:
            values["mfu"] = steps * self._step_flops / seconds / (self._peak * self._devices)
        self.pause()
        return values


_SHOWN = {
    "loss": "loss {:.3f}",
    "tokens_per_second_per_chip": "{:,.0f} tokens/s/chip",
    "padding": "padding {:.1%}",
    "mfu": "MFU {:.1%}",
    "waiting": "waiting for data {:.1%}",
}


def shown(values: dict[str, float]) -> str:
    """A row of metrics as the bar has it."""
    return ", ".join(text.format(values[name]) for name, text in _SHOWN.items() if name in values)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; none if it is missing; a line cut off by a kill is left out."""
    return [row for row in read_objects(path) if isinstance(row.get("step"), int)]


def progress_bar(first: int, total: int, unit: str = "step") -> tqdm:
    """The bar of a run of a command that is not silent, on process 0 only;
    where there is no terminal it prints a line every half minute at most."""
    terminal = os.isatty(2) and os.get_terminal_size(2).columns > 0
    return tqdm(
        total=total,
        initial=first,
        unit=unit,
        disable=jax.process_index() != 0 or not showing(),
        dynamic_ncols=terminal,
        mininterval=0.5 if terminal else 30,
    )


def plot_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """A PNG of the loss by step, training and held out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in {"loss": "-", "eval_loss": "o-"}.items():
        points = [(r["step"], r[name]) for r in rows if name in r]
        if points:
            label = "held out" if name.startswith("eval") else "training"
            axes.plot(*zip(*points, strict=True), style, markersize=3, linewidth=1.2, label=label)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
