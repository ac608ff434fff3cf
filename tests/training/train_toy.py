"""Trains the toy for so many steps in a folder, on two devices, saving every step: a process for tests to kill."""

import sys
from pathlib import Path

import jax

from tests.training import toy
from training.loop import LoopConfig, train
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=3)


def run(folder: Path, steps: int):
    config = LoopConfig(steps=steps, batch_size=8, log_every=1, eval_every=10, save_every=1)
    mesh = make_mesh(MeshConfig(fsdp=2), jax.devices()[:2])
    return train(toy.training(config, make_optimizer(OPTIMIZER, steps)), config, mesh, folder).state


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
