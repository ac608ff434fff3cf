"""Checkpoints: to the bit, on another mesh, and what damage does."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training import toy
from training.checkpoint import Checkpoints
from training.loop import LoopConfig, abstract_state
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer

TX = make_optimizer(OptimizerConfig(), 10)
TASK = toy.task(LoopConfig(batch_size=8))


def plain(state) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def save(folder: Path, steps=(1, 2, 3)):
    """Saves a state for each of `steps`; returns the last."""
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))), Checkpoints(folder) as checkpoints:
        state = abstract_state(TASK, TX, seed=0)[0]()
        for step in steps:
            state = state.replace(step=state.step * 0 + step, model=jax.tree.map(lambda x: x + 1, state.model))
            checkpoints.save(state, {"made": step})
        checkpoints.wait()
        return plain(state)


def restore(folder: Path, said: list[str], fsdp: int = 4):
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=fsdp))), Checkpoints(folder) as checkpoints:
        return checkpoints.restore(abstract_state(TASK, TX, seed=0)[1], said.append)


def test_restores_to_the_bit_on_another_mesh_and_keeps_the_newest(tmp_path):
    saved, said = save(tmp_path), []
    state = restore(tmp_path, said)
    for found, expected in zip(plain(state), saved, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (
        state.model.embedding.sharding.spec == jax.P("tensor", "fsdp")
        and state.key.dtype == jax.random.key(0, impl="rbg").dtype
    )
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 3] and checkpoints.config(3) == {"made": 3}
    assert not said


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(folder: Path) -> None:
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 1
    largest(folder).write_bytes(data)


DAMAGE = {
    "flipped bit": flip,
    "truncated": lambda folder: largest(folder).write_bytes(largest(folder).read_bytes()[:100]),
    "deleted": lambda folder: [path.unlink() for path in folder.rglob("d/*")],
    "no metadata": lambda folder: (folder / "state" / "_METADATA").unlink(),
    "no manifest": lambda folder: (folder / "state" / "manifest.ocdbt").unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_said_and_the_one_before_is_used(tmp_path, kind):
    save(tmp_path)
    DAMAGE[kind](tmp_path / "3")
    said: list[str] = []
    state = restore(tmp_path, said)
    assert int(state.step) == 2
    assert len(said) == 1 and "damaged" in said[0] and str(tmp_path / "3") in said[0] and "\n" not in said[0]


def test_nothing_sound_is_an_error_and_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "new", []) is None
    save(tmp_path)
    for step in ("2", "3"):
        flip(tmp_path / step)
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        restore(tmp_path, [])


def test_another_model_is_refused(tmp_path):
    save(tmp_path)
    tx = make_optimizer(OptimizerConfig(optimizer="adafactor"), 10)
    with jax.set_mesh(make_mesh(MeshConfig())), Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match="another model or optimizer"):
            checkpoints.restore(abstract_state(TASK, tx, seed=0)[1])


def test_what_a_kill_left_behind_is_ignored_and_removed(tmp_path):
    save(tmp_path)
    left = tmp_path / "4.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    assert int(restore(tmp_path, []).step) == 3
    assert not left.exists()
