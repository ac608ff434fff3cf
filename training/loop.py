"""The loop of every training of this project, readable straight down: mesh -> state -> restore -> steps.

Step n is dispatched before step n-1's numbers are read, so the devices never wait for the host.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from training.at_rest import collect
from training.checkpoints import Checkpoints
from training.command import Stopped
from training.events import Diverged, Events
from training.journal import Journal, plot_run
from training.mesh import data_share
from training.partition import abstract, axes_of, place
from training.profile import traced
from training.program import Data, HostBatch, Program
from training.ranges import check_choices, check_ranges
from training.step import TrainState, compile_step, skipping
from training.stopping import told_to_stop
from training.telling import tell

__all__ = ["LoopConfig", "Stopped", "Trained", "Training", "Diverged", "to_mesh", "train"]


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
    on_nan: Literal["stop", "skip", "rewind"] = "stop"
    """Where a loss, a gradient or an update is no number, or a spike. skip: that update is left out, and counted;
    rewind: on from the last checkpoint, the batches from there on left out."""
    spike: float | None = None
    """The norm of a gradient above which its update counts as one of no numbers: a batch that would throw the model far
    off. What is usual of a run is the gradient_norm in its metrics. By default none does."""
    setbacks: int = 10
    """Updates in a row that may be skipped, or times that may be rewound, before the run stops after all."""

    def __post_init__(self):
        names = ("steps", "batch_size", "accumulate", "log_every", "eval_every", "save_every", "keep")
        check_ranges(self, **dict.fromkeys(names, 1), seed=(0, 1 << 32), eval_batches=0, setbacks=0)
        check_ranges(self, spike=0)
        check_choices(self)

    @property
    def microbatch(self) -> int:
        """The rows of one microbatch. Raises ValueError where they do not divide."""
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} microbatches of equal size"
            )
        return self.batch_size // self.accumulate


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a package gives the engine: a program, its data, and what belongs to this run of it."""

    program: Program
    data: Data
    about: Mapping[str, Any]  # saved with every checkpoint: what a loader needs to know of the model
    start: Any | None = None  # arrays of the host for a new run's model, instead of those of the program's `init`
    review: Callable[[Any, int], dict[str, float]] | None = None  # (model, step) -> more numbers of an evaluation


class Trained(NamedTuple):
    state: TrainState  # its model as a loss takes it, see training.at_rest.collect
    finished: bool  # else it was told to stop: it has saved, and the same command goes on

    def complete(self) -> TrainState:
        """The state of a training that others go on with. Raises Stopped where it was told to stop."""
        if not self.finished:
            raise Stopped
        return self.state


def train(training: Training, config: LoopConfig, mesh: jax.sharding.Mesh, folder: Path) -> Trained:
    """Trains until `config.steps`, from the newest good checkpoint in `folder` if there is one.

    Raises Diverged where the loss is not finite, and ValueError where the folder's run had another model,
    optimizer or order of the data. On SIGTERM or Ctrl-C it saves and returns early.
    """
    program, data = training.program, training.data
    identity = {**data.identity, "batch_size": config.batch_size, "seed": config.seed}
    share, compiled, evaluate = data_share(mesh), None, _evaluation(training, config, mesh)

    def forward(state: TrainState, left_out: int) -> tuple[TrainState, int, bool]:
        """(the state, its step, was it told to stop?) at the end. Raises Diverged."""
        nonlocal compiled
        first = int(state.step)
        batches = data.train(first + left_out, share)
        batch = to_mesh(host := next(batches), mesh, config.accumulate)
        if compiled is None:
            tell("compiling the training step")
            step = skipping(program.step, config.spike) if config.on_nan == "skip" else program.step
            compiled = compile_step(step, state, batch)
        with Journal(program, folder, mesh, share, first, config, events) as journal:
            if first == 0:
                journal.evaluated(0, evaluate(state.model, 0))
            for number in range(first + 1, config.steps + 1):
                state, sums = traced(number, compiled, state, batch)
                dispatched = host
                if number < config.steps:
                    with journal.fetching(sums):
                        batch = to_mesh(host := next(batches), mesh, config.accumulate)
                journal.settle()  # the step before
                journal.dispatched(number, sums, dispatched)
                stop = asked(number)
                evaluates = number == config.steps or number % config.eval_every == 0
                saves = number == config.steps or number % config.save_every == 0 or stop
                if evaluates or saves:
                    journal.settle()
                if evaluates:
                    journal.evaluated(number, evaluate(state.model, number))
                if saves:
                    checkpoints.save(state, {**training.about, "fixed": identity, "left_out": left_out})
                    journal.saved(number)
                if stop:
                    break
        return state, number, stop

    with (
        Events(folder) as events,
        jax.set_mesh(mesh),
        Checkpoints(folder / "checkpoints", keep=config.keep) as checkpoints,
        told_to_stop() as asked,
    ):
        state, left_out = _begin(training, checkpoints, identity, config.steps, folder)
        if int(state.step) >= config.steps:
            return Trained(_whole(state), finished=True)
        events.begin(int(state.step))
        for rewound in count():
            try:
                state, number, stop = forward(state, left_out)
                break
            except Diverged as error:
                if config.on_nan != "rewind" or rewound == config.setbacks:
                    raise
                checkpoints.wait()
                del state
                state, _ = _begin(training, checkpoints, identity, config.steps, folder)
                saved = int(state.step)  # of a good checkpoint, which the newest may not be
                left_out += error.step - saved
                tell(
                    f"{error.why}; back to step {saved}, and on without the {error.step - saved} batches that came "
                    f"after it ({left_out} are left out so far)"
                )
                events.write("rewound", saved, since=error.step, why=error.why)
        checkpoints.wait()
        events.write("stopped" if stop and number < config.steps else "finished", number)
        if stop:
            tell(f"stopped: saved step {number} in {folder / 'checkpoints'}; the same command goes on from there")
        state = _whole(state)
    plot_run(folder)
    return Trained(state, finished=number >= config.steps)


def _whole(state: TrainState) -> TrainState:
    return replace(state, model=jax.jit(collect)(state.model))


def _begin(
    training: Training, checkpoints: Checkpoints, identity: dict[str, Any], steps: int, folder: Path
) -> tuple[TrainState, int]:
    """The state of the newest good checkpoint and how many batches its run had left out, or step 0."""
    target = abstract(training.program.init)
    state = checkpoints.restore(target)
    first = int(state.step) if state is not None else 0
    checkpoints.set_aside_after(first)
    if state is not None and first:
        about = checkpoints.config(first)
        _check_identity(folder, about | about.get("fixed", {}), identity)
        tell(f"{folder}: {'finished' if first >= steps else 'resumed'} at step {first} of {steps}")
        return state, about.get("left_out", 0)
    if state is None:
        if training.start is None:
            return jax.jit(training.program.init)(), 0
        state = jax.jit(lambda: replace(training.program.init(), model=None))()  # no weights are drawn in vain
        state = state.replace(model=place(training.start, target.model))
    return state, 0


def _check_identity(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if saved.get(name) != value:
            raise ValueError(
                f"{folder}: its run had {name} {saved.get(name)}, not {value}, and to go on would repeat or skip data; "
                "give what it had, or another folder"
            )


def _evaluation(
    training: Training, config: LoopConfig, mesh: jax.sharding.Mesh
) -> Callable[[Any, int], dict[str, float]]:
    """(model, step) -> the means over the held-out batches, and what `review` has to say."""
    whole = jax.jit(collect)
    told = training.review or (lambda model, number: {})
    if training.program.evaluate is None:
        return lambda model, number: told(whole(model), number)
    sums_of = jax.jit(training.program.evaluate)

    def evaluate(model: Any, number: int) -> dict[str, float]:
        model, totals = whole(model), dict[str, np.ndarray]()
        for rows in islice(training.data.heldout(data_share(mesh)), config.eval_batches):
            for name, pair in sums_of(model, to_mesh(rows, mesh)).items():
                totals[name] = totals.get(name, 0) + np.array([float(x) for x in pair])
        means = {name: s / max(w, 1.0) for name, (s, w) in totals.items()}
        return means | told(model, number)

    return evaluate


def to_mesh(batch: HostBatch, mesh: jax.sharding.Mesh, microbatches: int | None = None) -> dict[str, jax.Array]:
    """This process's rows [b, ...] of every array -> global arrays cut over the mesh,
    [microbatches, rows, ...] if given."""

    def place(x: np.ndarray) -> jax.Array:
        lead: tuple = ()
        if microbatches:
            # Row r goes to microbatch r % microbatches, so that every device has rows of each.
            x, lead = x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), (None,)
        rest = (None,) * (x.ndim - len(lead) - 1)
        sharding = NamedSharding(mesh, PartitionSpec(*lead, axes_of("batch", mesh), *rest))
        return jax.make_array_from_process_local_data(sharding, x)

    return {name: place(x) for name, x in batch.items()}
