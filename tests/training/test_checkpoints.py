"""Checkpoints: to the bit, on another mesh, and what damage does."""

import gc
import random
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training import toy
from training.checkpoints import Checkpoints, DamagedCheckpoint, _undisturbed
from training.loop import LoopConfig
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import abstract

TX = make_optimizer(OptimizerConfig(), 10)
PROGRAM = toy.training(LoopConfig(batch_size=8), TX).program


def plain(state) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def save(folder: Path, steps=(1, 2, 3)):
    """Saves a state for each of `steps`; returns the last."""
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))), Checkpoints(folder) as checkpoints:
        state = jax.jit(PROGRAM.init)()
        for step in steps:
            state = state.replace(step=state.step * 0 + step, model=jax.tree.map(lambda x: x + 1, state.model))
            checkpoints.save(state, {"made": step})
        checkpoints.wait()
        return plain(state)


def restore(folder: Path, fsdp: int = 4):
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=fsdp))), Checkpoints(folder) as checkpoints:
        return checkpoints.restore(abstract(PROGRAM.init))


def test_restores_to_the_bit_on_another_mesh_and_keeps_the_newest(tmp_path, said):
    saved = save(tmp_path)
    state = restore(tmp_path)
    for found, expected in zip(plain(state), saved, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (
        state.model.embedding.sharding.spec == jax.P(("tensor", "data"), "fsdp")
        and state.key.dtype == jax.random.key(0, impl="rbg").dtype
    )
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 3] and checkpoints.config(3) == {"made": 3}
    assert not said


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << int(place * 997) % 8
    path.write_bytes(data)


DAMAGE = {
    "deleted": lambda path: shutil.rmtree(path) if path.is_dir() else path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped bit": lambda path: flip(path, 0.5),
    "another flipped bit": lambda path: flip(path, random.random()),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("saved")
    return folder, save(folder)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if "another" in kind else kind for kind in DAMAGE]
)
def test_damage_is_never_restored(saved, tmp_path, kind, said):
    """Of every file in turn (and every folder, as a deletion killed half-way leaves it): what is restored is whole."""
    folder, newest = saved
    used: dict[str, int] = {}
    for path in sorted(folder.glob("3/**/*")):
        if path.is_dir() and kind != "deleted":
            continue
        shutil.copytree(folder, copy := tmp_path / "copy")
        DAMAGE[kind](copy / path.relative_to(folder))
        said.clear()
        name = str(path.relative_to(folder))
        try:
            state = restore(copy)
        except DamagedCheckpoint as error:  # Orbax lists no checkpoints when one's own description is broken JSON
            assert "flipped" in kind and path.name == "_CHECKPOINT_METADATA" and "\n" not in str(error), name
        else:
            used[name] = int(state.step)
            if used[name] == 3:
                for found, expected in zip(plain(state), newest, strict=True):
                    np.testing.assert_array_equal(found, expected, err_msg=name)
            else:
                (line,) = said
                assert used[name] == 2 and line.startswith(f"{copy / '3'}: damaged checkpoint (") and "\n" not in line
        shutil.rmtree(copy)
    gc.collect()  # Orbax's own, of the reads that failed, while their exceptions are ignored
    assert used[str(largest(folder / "3").relative_to(folder))] == 2
    if "flipped" not in kind:  # one bit of a description may change nothing that is read
        described = ["3/state/_METADATA", "3/state/manifest.ocdbt", "3/_CHECKPOINT_METADATA"]
        assert [used[name] for name in described] == [2, 2, 2]


def test_nothing_sound_is_an_error_and_nothing_saved_is_none(tmp_path, said):
    assert restore(tmp_path / "new") is None
    save(tmp_path)
    for step in ("2", "3"):
        flip(largest(tmp_path / step), 0.5)
    with pytest.raises(ValueError, match="every checkpoint is damaged; .* delete the folder"):
        restore(tmp_path)
    assert len(said) == 2


def test_a_sound_one_under_another_steps_name_is_neither_restored_nor_set_aside(tmp_path):
    save(tmp_path)
    (tmp_path / "3").rename(tmp_path / "7")
    with pytest.raises(ValueError, match="7: holds step 3; name the folder so"):
        restore(tmp_path)
    assert {"2", "7"} <= {path.name for path in tmp_path.iterdir()}


def test_another_model_is_refused(tmp_path):
    save(tmp_path)
    tx = make_optimizer(OptimizerConfig(optimizer="adafactor"), 10)
    with jax.set_mesh(make_mesh(MeshConfig())), Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match="another model or optimizer"):
            checkpoints.restore(abstract(toy.training(LoopConfig(), tx).program.init))


def test_what_a_kill_left_behind_is_ignored_and_removed(tmp_path):
    save(tmp_path)
    left = tmp_path / "4.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    assert int(restore(tmp_path).step) == 3
    assert not left.exists()


def test_ctrl_c_waits_until_orbax_is_done():
    """Which would take it for damage, and an older checkpoint would be read."""
    before, done = signal.signal(signal.SIGINT, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt), _undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append(True)
        assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
