"""Checkpoints through Orbax (v1 API), and nothing else of the project touches Orbax.

A checkpoint is the whole TrainState; beside it lie the config that made it and one checksum per array, so that a damaged
file is noticed whatever it decodes to. Arrays are restored straight into the shards of the mesh in use.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from training.partition import spec
from training.step import TrainState


@jax.jit
def _checksums(tree: Any) -> list[jax.Array]:
    """One uint32 an array: the sum of its bits as unsigned integers, which no order of summation or sharding changes."""

    def checksum(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize])
        total = jnp.sum(bits.astype(jnp.uint32))
        return total if spec() is None else jax.reshard(total, spec())

    return [checksum(x) for x in jax.tree.leaves(tree)]


def _storable(state: TrainState) -> TrainState:
    """The state with its typed key as plain integers."""
    return state.replace(key=jax.random.key_data(state.key))


class Checkpoints:
    """The checkpoints of one run, by step, in one folder. Use as a context: leaving it waits for the last write."""

    def __init__(self, folder: Path, *, keep: int = 2):
        """folder: made if missing. keep: how many of the newest checkpoints stay."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        # What a killed write left behind is never a checkpoint (Orbax renames when all is written), only a loss of space.
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, state: TrainState, config: dict[str, Any]) -> None:
        """Starts writing in the background; the arrays are copied before this returns. Raises OSError on a full disk."""
        state = _storable(state)
        step = int(state.step)
        if step in self.steps:
            return
        about = {"config": config, "checksums": [int(x) for x in _checksums(state)]}
        self._checkpointer.save_async(step, state, custom_metadata=about)

    def wait(self) -> None:
        """Returns when the last save is on disk."""
        self._checkpointer.wait()

    def config(self, step: int) -> dict[str, Any]:
        """The config that the checkpoint of this step was saved with."""
        return self._checkpointer.metadata(step).custom_metadata["config"]

    def restore(self, abstract: TrainState, say=print) -> TrainState | None:
        """The newest undamaged checkpoint in the shardings of `abstract`; None if there is none.

        A damaged one is reported through `say` and the one before it tried. Raises ValueError where a checkpoint is sound
        but of another model or optimizer.
        """
        target = abstract.replace(key=jax.eval_shape(jax.random.key_data, abstract.key))
        for step in reversed(self.steps):
            try:
                about = self._checkpointer.metadata(step)
                saved, wanted = _shapes(about.metadata), _shapes(target)
                if saved != wanted:
                    name = min(k for k in saved | wanted if saved.get(k) != wanted.get(k))
                    raise ValueError(
                        f"{self.folder}/{step}: the checkpoint is of another model or optimizer ({name} is "
                        f"{saved.get(name)} there, {wanted.get(name)} here); give the flags it was made with, or another folder"
                    )
            except ValueError:
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
                say(_damaged(self.folder / str(step), error))
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    state = self._checkpointer.load(step, target)
                found = [int(x) for x in _checksums(state)]
                if found != about.custom_metadata["checksums"]:
                    raise OSError("an array is not what was saved")
            except Exception as error:
                say(_damaged(self.folder / str(step), error))
                continue
            return state.replace(key=jax.random.wrap_key_data(state.key, impl="rbg"))
        return None

    def discard_after(self, step: int) -> None:
        """Deletes the (damaged) checkpoints of later steps, so that the run can write them again."""
        for later in [s for s in self.steps if s > step]:
            self._checkpointer.delete(later)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}


def _damaged(path: Path, error: Exception) -> str:
    reason = next(iter(str(error).strip().splitlines()), "")[:160]
    return f"{path}: damaged checkpoint ({type(error).__name__}: {reason}); trying the one before it"


def read_config(folder: Path) -> dict[str, Any]:
    """The config of the newest checkpoint below `folder`, read without any array; ValueError if there is none."""
    with Checkpoints(folder) as checkpoints:
        if not checkpoints.steps:
            raise ValueError(f"{folder}: no checkpoint here; give the work folder of a finished or running training")
        return json.loads(json.dumps(checkpoints.config(checkpoints.steps[-1])))
