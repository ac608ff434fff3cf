"""The loop of every training of this project, readable straight down: mesh -> state -> restore -> steps.

Step n is dispatched before step n-1's numbers are read, so the devices never wait for the host.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from training.checkpoint import Checkpoints
from training.metrics import Metrics, peak_flops, plot_curves, progress_bar, read_metrics
from training.partition import RULES
from training.step import LossFn, TrainState, compile_step, init_state

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
    """Steps between checkpoints; also at the end and on SIGTERM."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    seed: int = 0
    """Of initialisation, dropout and the order of the data."""


@dataclass(frozen=True)
class Task:
    """What a package gives the engine to train."""

    init: Callable[[jax.Array], Any]  # key -> model
    loss: LossFn  # (model, batch, key) -> sums; dropout without a key is off
    train_batches: Callable[[int], Iterator[HostBatch]]  # first step -> this process's rows of that batch and all later
    eval_batches: Callable[[], Iterable[HostBatch]]  # this process's rows of the held-out batches
    count: Callable[[HostBatch], tuple[int, int]]  # host batch -> (real tokens, positions)
    flops_per_row: int  # of a training step, by the model's own convention
    config: dict[str, Any]  # saved with every checkpoint


class TrainingStopped(ValueError):
    """Training cannot go on: the loss is not a number. The message says where the last good checkpoint is."""


def abstract_state(
    task: Task, tx: optax.GradientTransformation, seed: int
) -> tuple[Callable[[], TrainState], TrainState]:
    """(the compiled initialisation, the state's shapes and shardings), under the mesh that is set."""
    make = lambda: init_state(task.init, tx, seed)  # noqa: E731
    compiled = jax.jit(make).lower().compile()
    shape = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
    return compiled, jax.tree.map(shape, jax.eval_shape(make), compiled.output_shardings)


def to_mesh(batch: HostBatch, mesh: jax.sharding.Mesh, microbatches: int | None = None) -> dict[str, jax.Array]:
    """This process's rows [b, ...] of every array -> global arrays cut over the mesh, [microbatches, rows, ...] if given."""

    def place(x: np.ndarray) -> jax.Array:
        lead: tuple = ()
        if microbatches:
            # Row r goes to microbatch r % microbatches, so that every device has rows of each.
            x, lead = x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (None,)
        rest = (None,) * (x.ndim - len(lead) - 1)
        return jax.make_array_from_process_local_data(
            NamedSharding(mesh, PartitionSpec(*lead, RULES["batch"], *rest)), x
        )

    return {name: place(x) for name, x in batch.items()}


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that the loop can save and leave; the handler is put back afterwards.

    With several processes the handler is that of jax.distributed, which tells all of them (see _preempted).
    """
    asked = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)


def train(
    task: Task, config: LoopConfig, tx: optax.GradientTransformation, mesh: jax.sharding.Mesh, folder: Path, say=print
) -> TrainState:
    """Trains until `config.steps`, from the newest good checkpoint in `folder` if there is one; returns the last state.

    Raises TrainingStopped where the loss is not finite. On SIGTERM it saves and returns early.
    """
    with (
        jax.set_mesh(mesh),
        Checkpoints(folder / "checkpoints", keep=config.keep) as checkpoints,
        _sigterm() as asked,
    ):
        init, abstract = abstract_state(task, tx, config.seed)
        state = checkpoints.restore(abstract, say)
        first = int(state.step) if state is not None else 0
        checkpoints.discard_after(first)
        if first:
            done = "finished" if first >= config.steps else "resumed"
            say(f"{folder}: {done} at step {first} of {config.steps}")
        state = init() if state is None else state
        if first >= config.steps:
            return state

        batches = task.train_batches(first)
        batch = to_mesh(host := next(batches), mesh, config.accumulate)
        step = compile_step(task.loss, tx, state, batch)
        evaluate = jax.jit(lambda model, batch: task.loss(model, batch, None))
        metrics, bar = Metrics(folder, first_step=first), progress_bar(first, config.steps)
        speed = _Speed(task, config, mesh)
        good = first  # the newest checkpoint that is known to be sound

        def settle(number: int, sums, host: HostBatch) -> None:
            """Reads the numbers of a dispatched step; logs, and stops the run if they are not finite."""
            nonlocal good
            speed.add(host)
            values = {name: float(s) / max(float(w), 1.0) for name, (s, w) in sums.items()}
            if not np.isfinite(values["loss"]) or not np.isfinite(values["gradient_norm"]):
                raise TrainingStopped(
                    f"step {number}: the loss is {values['loss']}, its gradient's norm {values['gradient_norm']}; stopped. "
                    f"Last good checkpoint: step {good} in {folder / 'checkpoints'}. Try a lower learning rate or float32"
                )
            if number % config.log_every == 0 or number == config.steps:
                values |= speed.values(number)
                metrics.write(number, values)
                bar.set_postfix_str(_postfix(values), refresh=False)
            bar.update(number - bar.n)

        def save(state: TrainState, number: int) -> None:
            nonlocal good
            checkpoints.save(state, task.config)
            good = number

        def evaluation(model, number: int) -> None:
            totals: dict[str, np.ndarray] = {}
            for rows in task.eval_batches():
                sums = evaluate(model, to_mesh(rows, mesh))
                for name, pair in sums.items():
                    totals[name] = totals.get(name, 0) + np.array([float(x) for x in pair])
            if totals:
                values = {f"eval_{name}": s / max(w, 1.0) for name, (s, w) in totals.items()}
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
                        f"SIGTERM: saved step {number} in {folder / 'checkpoints'}; the same command goes on from there"
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
        self._peak = peak_flops(mesh.devices.flat[0].device_kind) * mesh.size
        if mesh.devices.flat[0].platform == "cpu":
            self._peak /= mesh.size  # fake devices share one processor
        self._since, self._start = 0, time.perf_counter()
        self._tokens = self._positions = self._steps = 0

    def add(self, host: HostBatch) -> None:
        tokens, positions = self._task.count(host)
        self._tokens += tokens * jax.process_count()
        self._positions += positions * jax.process_count()
        self._steps += 1

    def pause(self) -> None:
        self._start = time.perf_counter()
        self._tokens = self._positions = self._steps = 0

    def values(self, number: int) -> dict[str, float]:
        seconds, steps = time.perf_counter() - self._start, self._steps
        values = {
            "tokens_per_second": self._tokens / seconds,
            "padding": 1 - self._tokens / max(self._positions, 1),
            "mfu": steps * self._step_flops / seconds / self._peak,
        }
        self.pause()
        return values


def _postfix(values: dict[str, float]) -> str:
    return (
        f"loss {values['loss']:.3f}, {values['tokens_per_second']:,.0f} tokens/s, "
        f"padding {values['padding']:.1%}, MFU {values['mfu']:.1%}"
    )
