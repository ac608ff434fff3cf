"""The loop of every training of this project, readable straight down: mesh -> state -> restore -> steps.

Step n is dispatched before step n-1's numbers are read, so the devices never wait for the host.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from training.checkpoints import Checkpoints
from training.mesh import data_share
from training.metrics import Metrics, peak_flops, plot_curves, progress_bar, read_metrics, silent
from training.partition import RULES, abstract, place
from training.ranges import check_ranges
from training.step import Batch, Step, Sums, TrainState, compile_step

HostBatch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    steps: int = 1_000_000
    """Updates in all; a finished run given more of them goes on."""
    batch_size: int = 96
    """Rows of one update, over all devices and microbatches."""
    accumulate: int = 1
    """Microbatches that one update's rows are cut into, one after the other, to save memory."""
    log_every: int = 10
    """Steps between rows of metrics."""
    eval_every: int = 1000
    """Steps between evaluations on the held-out rows; also done at the end."""
    save_every: int = 1000
    """Steps between checkpoints; also at the end, on SIGTERM and on Ctrl-C."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    seed: int = 0
    """Of initialisation, dropout and the order of the data."""
    eval_batches: int = 100
    """Held-out batches of an evaluation, at most."""

    def __post_init__(self):
        names = ("steps", "batch_size", "accumulate", "log_every", "eval_every", "save_every", "keep")
        check_ranges(self, **dict.fromkeys(names, 1), seed=(0, 1 << 32), eval_batches=0)


def microbatch(batch_size: int, accumulate: int) -> int:
    """The rows of one microbatch. Raises ValueError where they do not divide."""
    if batch_size < 1 or accumulate < 1 or batch_size % accumulate:
        raise ValueError(f"batch_size {batch_size} cannot be cut into {accumulate} microbatches of equal size")
    return batch_size // accumulate


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a package gives the engine to train."""

    init: Callable[[], TrainState]  # step 0; traced
    step: Step  # see training.step.make_train_step
    evaluate: Callable[[Any, Batch], Sums]  # (model, batch) -> sums
    train_batches: Callable[[int], Iterator[HostBatch]]  # first step -> this process's rows of that batch and all later
    eval_batches: Callable[[], Iterable[HostBatch]]  # this process's rows of the held-out batches
    config: dict[str, Any]  # saved with every checkpoint
    fixed: dict[str, Any]  # of it or beside it, what may not change when a run is resumed: the data and its order
    weights: Any | None = None  # arrays of the host for a new run's model, instead of those of `init`
    review: Callable[[Any, int], dict[str, float]] | None = None  # (model, step) -> more numbers of an evaluation
    count: Callable[[HostBatch], tuple[int, int]] | None = None  # host batch -> (real tokens, positions)
    flops_per_row: int = 0  # of a training step, by the model's own convention


class TrainingStopped(ValueError):
    """Training cannot go on: the loss is not a number. The message says where the last good checkpoint is."""


def to_mesh(batch: HostBatch, mesh: jax.sharding.Mesh, microbatches: int | None = None) -> dict[str, jax.Array]:
    """This process's rows [b, ...] of every array -> global arrays cut over the mesh, [microbatches, rows, ...] if given."""
    _, parts = data_share(mesh)

    def place(x: np.ndarray) -> jax.Array:
        lead: tuple = ()
        if microbatches:
            # Row r goes to microbatch r % microbatches, so that every device has rows of each.
            x, lead = x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (None,)
        rest = (None,) * (x.ndim - len(lead) - 1)
        sharding = NamedSharding(mesh, PartitionSpec(*lead, RULES["batch"], *rest))
        rows = x.shape[len(lead)] * parts
        return jax.make_array_from_process_local_data(
            sharding, x, (*x.shape[: len(lead)], rows, *x.shape[len(lead) + 1 :])
        )

    return {name: place(x) for name, x in batch.items()}


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM or a first Ctrl-C sets, so that the loop can save and leave; a second Ctrl-C interrupts.

    With several processes the handler is that of jax.distributed for SIGTERM, which tells all of them (see _preempted).
    """
    asked = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _) -> None:
        asked.set()
        signal.signal(number, previous[signal.Signals(number)])

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(task: Task, config: LoopConfig, mesh: jax.sharding.Mesh, folder: Path, say=print) -> TrainState:
    """Trains until `config.steps`, from the newest good checkpoint in `folder` if there is one; returns the last state.

    Raises TrainingStopped where the loss is not finite, and ValueError where the folder's run had another model,
    optimizer or order of the data. On SIGTERM or Ctrl-C it saves and returns early.
    """
    fixed = {**task.fixed, "batch_size": config.batch_size, "seed": config.seed}
    with (
        jax.set_mesh(mesh),
        Checkpoints(folder / "checkpoints", keep=config.keep) as checkpoints,
        _asked_to_stop() as asked,
    ):
        target = abstract(task.init)
        state = checkpoints.restore(target, say)
        first = int(state.step) if state is not None else 0
        checkpoints.set_aside_after(first, say)
        if first:
            _check_fixed(folder, checkpoints.config(first).get("fixed", {}), fixed)
            done = "finished" if first >= config.steps else "resumed"
            say(f"{folder}: {done} at step {first} of {config.steps}")
        if state is None:
            state = jax.jit(task.init)()
            if task.weights is not None:
                state = state.replace(model=place(task.weights, target.model))
        if first >= config.steps:
            return state

        batches = task.train_batches(first)
        batch = to_mesh(host := next(batches), mesh, config.accumulate)
        say("compiling the training step")
        step, evaluate = compile_step(task.step, state, batch), jax.jit(task.evaluate)
        metrics = Metrics(folder, first_step=first)
        bar = progress_bar(first, config.steps, shown=say is not silent)
        speed = _Speed(task, config, mesh)
        good = first  # the newest checkpoint, 0 for none

        def settle(number: int, sums, host: HostBatch) -> None:
            """Reads the numbers of a dispatched step; logs, and stops the run if they are not finite."""
            nonlocal good
            speed.add(host)
            values = {name: float(s) / max(float(w), 1.0) for name, (s, w) in sums.items()}
            if wrong := [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]:
                saved = (
                    f"Last good checkpoint: step {good} in {folder / 'checkpoints'}"
                    if good
                    else "Nothing was saved yet"
                )
                raise TrainingStopped(
                    f"step {number}: {', '.join(wrong)}; stopped. {saved}. Try a lower learning rate or float32"
                )
            if number % config.log_every == 0 or number == config.steps:
                values |= speed.values()
                metrics.write(number, values)
                bar.set_postfix_str(_postfix(values), refresh=False)
            bar.update(number - bar.n)

        def save(state: TrainState, number: int) -> None:
            nonlocal good
            checkpoints.save(state, {**task.config, "fixed": fixed})
            good = number

        def evaluation(model, number: int) -> None:
            totals: dict[str, np.ndarray] = {}
            for rows in islice(task.eval_batches(), config.eval_batches):
                sums = evaluate(model, to_mesh(rows, mesh))
                for name, pair in sums.items():
                    totals[name] = totals.get(name, 0) + np.array([float(x) for x in pair])
            values = {name: s / max(w, 1.0) for name, (s, w) in totals.items()}
            values |= task.review(model, number) if task.review else {}
            if values:
                values = {f"eval_{name}": value for name, value in values.items()}
                metrics.write(number, values)
                if not bar.disable:
                    bar.write(f"step {number}: held out " + ", ".join(f"{k[5:]} {v:.4f}" for k, v in values.items()))
                speed.pause()

        try:
            if first == 0:
                evaluation(state.model, 0)
            pending = None
            for number in range(first + 1, config.steps + 1):
                state, sums = step(state, batch)
                dispatched = (number, sums, host)
                if number < config.steps:
                    batch = to_mesh(host := next(batches), mesh, config.accumulate)
                if pending is not None:
                    settle(*pending)
                pending = dispatched
                stop = _preempted(asked, number)
                last = number == config.steps or stop
                if last or number % config.save_every == 0 or number % config.eval_every == 0:
                    settle(*pending)
                    pending = None
                if number == config.steps or number % config.eval_every == 0:
                    evaluation(state.model, number)
                if last or number % config.save_every == 0:
                    save(state, number)
                    speed.pause()
                if stop:
                    checkpoints.wait()
                    say(
                        f"stopped: saved step {number} in {folder / 'checkpoints'}; the same command goes on from there"
                    )
                    break
        finally:
            bar.close()
            metrics.close()
        checkpoints.wait()
    if jax.process_index() == 0:
        plot_curves(read_metrics(folder / "metrics.jsonl"), folder / "loss.png")
    return state


def _preempted(asked: threading.Event, number: int) -> bool:
    """Has this process, or with several of them the whole job, been told to stop? All processes answer alike."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(number)
    return asked.is_set()


class _Speed:
    """Tokens per second, padding and utilisation since the last row of metrics; pauses (evaluation, saving) left out."""

    def __init__(self, task: Task, config: LoopConfig, mesh: jax.sharding.Mesh):
        self._task = task
        self._step_flops = task.flops_per_row * config.batch_size
        self._parts = data_share(mesh)[1]
        self._peak = peak_flops(mesh.devices.flat[0].device_kind) * mesh.size if self._step_flops else 0
        if mesh.devices.flat[0].platform == "cpu":
            self._peak /= mesh.size  # fake devices share one processor
        self.pause()

    def add(self, host: HostBatch) -> None:
        self._steps += 1
        if self._task.count:
            tokens, positions = self._task.count(host)
            self._tokens += tokens * self._parts
            self._positions += positions * self._parts

    def pause(self) -> None:
        self._start = time.perf_counter()
        self._tokens = self._positions = self._steps = 0

    def values(self) -> dict[str, float]:
        seconds, steps = time.perf_counter() - self._start, self._steps
        values = {"steps_per_second": steps / seconds}
        if self._positions:
            values |= {"tokens_per_second": self._tokens / seconds, "padding": 1 - self._tokens / self._positions}
        if self._step_flops:
            values["mfu"] = steps * self._step_flops / seconds / self._peak
        self.pause()
        return values


_SHOWN = {
    "loss": "loss {:.3f}",
    "tokens_per_second": "{:,.0f} tokens/s",
    "padding": "padding {:.1%}",
    "mfu": "MFU {:.1%}",
}


def _postfix(values: dict[str, float]) -> str:
    return ", ".join(text.format(values[name]) for name, text in _SHOWN.items() if name in values)


def _check_fixed(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if saved.get(name) != value:
            raise ValueError(
                f"{folder}: its run had {name} {saved.get(name)}, not {value}, and to go on would repeat or skip data; "
                "give what it had, or another folder"
            )
