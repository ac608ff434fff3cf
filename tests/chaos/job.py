"""One process of a job that trains the toy, and counts in its state how often each row of the data was trained on.

python -m tests.chaos.job FOLDER HERE STEPS SAVE_EVERY SILENCE, and in the environment JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID. The first process appends each step that it begins to HERE/steps.jsonl, and in the
end writes HERE/final.npz.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.training import toy
from training import checkpoints
from training.command import run
from training.files.buckets import path_of
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig, Trained, train
from training.mesh import MeshConfig, Share, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import to_host
from training.step import TrainState, init_state, make_train_step

ROWS, BATCH, PACE = 400, 16, 0.03  # rows of the data, and of a batch; seconds that a batch takes at least


def rows_of(step: int) -> np.ndarray:
    """The rows of a step's batch: each epoch in another order."""
    numbers = range(step * BATCH, (step + 1) * BATCH)
    orders = {n // ROWS: np.random.default_rng(n // ROWS).permutation(ROWS) for n in (numbers[0], numbers[-1])}
    return np.array([orders[n // ROWS][n % ROWS] for n in numbers], np.int32)


def expected(steps: int) -> np.ndarray:
    """How often each row is trained on in so many steps."""
    return np.bincount(np.concatenate([rows_of(step) for step in range(steps)]), minlength=ROWS)


def job(folder: Path, here: Path, steps: int, save_every: int, silence: float) -> Trained:
    checkpoints.PATIENCE = 15  # where one process's part of a checkpoint is refused, the others wait for it
    launch = LaunchConfig(distributed=True, silence=silence)
    joined(launch)
    config = LoopConfig(steps=steps, batch_size=BATCH, log_every=5, eval_every=steps, save_every=save_every, keep=3)
    tx = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup=3), steps)
    learn, data = make_train_step(toy.loss, tx), {name: x for name, x in toy.batch(ROWS, 0).items()}

    def init() -> TrainState:
        state = init_state(toy.init, tx, config.seed)
        return replace(state, optimizer={"toy": state.optimizer, "trained": jnp.zeros(ROWS, jnp.int32)})

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Any]:
        batch = dict(batch)
        counted = jax.nn.one_hot(batch.pop("row"), ROWS, dtype=jnp.int32).sum((0, 1))
        after, sums = learn(replace(state, optimizer=state.optimizer["toy"]), batch)
        trained = state.optimizer["trained"] + counted
        return replace(after, optimizer={"toy": after.optimizer, "trained": trained}), sums

    def batches(first: int, share: Share) -> Iterator[toy.HostBatch]:
        number = first
        while True:
            if jax.process_index() == 0:
                with (here / "steps.jsonl").open("a") as file:
                    file.write(json.dumps({"step": number, "time": time.monotonic(), "process": os.getpid()}) + "\n")
            time.sleep(PACE)
            rows = share.of(rows_of(number))
            yield {name: x[rows] for name, x in data.items()} | {"row": rows}
            number += 1

    training = toy.training(config, tx, step=step, train=batches)
    training = replace(training, program=replace(training.program, init=init))
    with hold(folder, launch):
        trained = train(training, config, make_mesh(MeshConfig()), folder)
    if trained.finished:
        state = to_host(trained.state.replace(key=jax.random.key_data(trained.state.key)))
        if jax.process_index() == 0:
            np.savez(
                here / "final.npz", **{jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state)}
            )
    return trained


if __name__ == "__main__":
    folder, here, steps, save_every, silence = sys.argv[1:]
    run(lambda: job(path_of(folder, "folder"), Path(here), int(steps), int(save_every), float(silence)))
