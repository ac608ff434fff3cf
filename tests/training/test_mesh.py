"""A mesh changes where the numbers are computed, and not the numbers."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from pegasus_zh.t5 import mt5, objective
from tests.training import toy
from training.checkpoints import Checkpoints
from training.loop import LoopConfig, to_mesh, train
from training.mesh import AXES, MeshConfig, data_share, make_mesh
from training.metrics import read_metrics
from training.optimizer import OptimizerConfig, make_optimizer
from training.partition import abstract, check_divisible
from training.step import compile_step

MESHES = [(8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4), (2, 1, 2, 2)]  # the last of two replicas
# A seed at which no gradient is so near 0 that Adam, which divides by its size, makes 1e-5 of its rounding.
LOOP = LoopConfig(batch_size=16, seed=11)


def mesh_of(data: int, fsdp: int, tensor: int, replica: int = 1) -> Mesh:
    config = MeshConfig(replica=replica, data=data, fsdp=fsdp, tensor=tensor)
    return make_mesh(config, jax.devices()[: replica * data * fsdp * tensor])


def run(model, batches: list[dict[str, np.ndarray]], optimizer: str, accumulate: int, mesh: Mesh, rate=1e-2):
    """(losses, gradient norms, parameters) of one step for each batch."""
    config = OptimizerConfig(optimizer=optimizer, learning_rate=rate, warmup=1, schedule="rsqrt")
    tx = make_optimizer(config, len(batches))
    with jax.set_mesh(mesh):
        program = toy.training(LOOP, tx, **model).program
        state, numbers = jax.jit(program.init)(), []
        step = compile_step(program.step, abstract(program.init), to_mesh(batches[0], mesh, accumulate))
        for batch in batches:
            state, sums = step(state, to_mesh(batch, mesh, accumulate))
            numbers.append([float(s / w) for s, w in (sums["loss"], sums["gradient_norm"])])
        return np.array(numbers), jax.tree.map(np.asarray, state.model)


def assert_same(found, expected, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=tolerance)
    same = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    jax.tree.map(same, found[1], expected[1])


TOY_BATCHES = [toy.batch(16, step) for step in range(3)]


@pytest.fixture(scope="module", params=[("adamw", 2), ("adafactor", 1)])
def toy_alone(request):
    """(optimizer, accumulate, what one device computes)."""
    return *request.param, run({}, TOY_BATCHES, *request.param, mesh_of(1, 1, 1))


@pytest.mark.parametrize("sizes", [pytest.param(x, marks=pytest.mark.slow) if 8 in x else x for x in MESHES])
def test_every_mesh_trains_like_one_device(toy_alone, sizes):
    """With dropout: its masks too are the same."""
    optimizer, accumulate, alone = toy_alone
    assert_same(run({}, TOY_BATCHES, optimizer, accumulate, mesh_of(*sizes)), alone)


MODEL = mt5.MT5Config(vocabulary=64, width=16, feed_forward=32, heads=4, head_size=8, layers=2, dropout=0.1)


def t5_batch(seed: int, rows: int = 16, source: int = 12, target: int = 8) -> dict[str, np.ndarray]:
    """Random ids in rows of two segments and padding, of different lengths."""
    random = np.random.default_rng(seed)

    def segments(length: int) -> np.ndarray:
        ends = np.sort(random.integers(1, length + 1, (rows, 2)), axis=1)
        place = np.arange(length)
        return (np.where(place < ends[:, :1], 1, 2) * (place < ends[:, 1:])).astype(np.int32)

    ids = lambda length: random.integers(1, MODEL.vocabulary, (rows, length), dtype=np.int32)  # noqa: E731
    return {
        "source": ids(source),
        "source_segments": segments(source),
        "target": ids(target),
        "target_inputs": ids(target),
        "target_segments": segments(target),
    }


T5 = {
    "init": partial(mt5.init, MODEL),
    "loss": partial(objective.loss, config=MODEL, smoothing=0.1, z_loss=1e-4),
}
T5_BATCHES = [t5_batch(seed) for seed in range(2)]


@pytest.fixture(scope="module")
def t5_alone():
    return run(T5, T5_BATCHES, "adamw", 1, mesh_of(1, 1, 1), rate=1e-3)


@pytest.mark.parametrize(
    "sizes", [MESHES[1], *(pytest.param(x, marks=pytest.mark.slow) for x in MESHES if x != MESHES[1])]
)
def test_every_mesh_trains_t5_like_one_device(t5_alone, sizes):
    """Dropout, label smoothing and z-loss."""
    assert_same(run(T5, T5_BATCHES, "adamw", 1, mesh_of(*sizes), rate=1e-3), t5_alone)


def test_rows_are_dealt_to_the_microbatches():
    """Row r is row r // k of microbatch r % k, whatever the mesh; every device gets rows of each."""
    batch = toy.batch(16, 0)
    mesh = mesh_of(2, 2, 2)
    placed = to_mesh(batch, mesh, 4)
    for name, x in batch.items():
        assert placed[name].shape == (4, 4, *x.shape[1:])
        for r in range(16):
            np.testing.assert_array_equal(np.asarray(placed[name])[r % 4, r // 4], x[r])
        assert {shard.data.shape[:2] for shard in placed[name].addressable_shards} == {(4, 1)}
    np.testing.assert_array_equal(to_mesh(batch, mesh)["ids"], batch["ids"])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_microbatches_add_up_to_the_batch(accumulate):
    """Exactly the mean over all tokens, although the microbatches weigh differently
    (dropout is off: masks would differ)."""
    task = {"loss": partial(toy.loss, rate=0.0)}
    weights = TOY_BATCHES[0]["weights"]
    assert len({weights[m::accumulate].sum() for m in range(accumulate)}) > 1
    cut, whole = (run(task, TOY_BATCHES, "adamw", k, mesh_of(1, 1, 1)) for k in (accumulate, 1))
    assert_same(cut, whole)


class Device:
    def __init__(self, process: int):
        self.process_index = process


@pytest.mark.parametrize(
    ("sizes", "devices_of_each", "here", "share"),
    [
        ((4, 1, 2), 4, 0, (0, 2)),
        ((4, 1, 2), 4, 1, (1, 2)),
        ((2, 2, 2), 2, 3, (3, 4)),
        ((1, 1, 8), 4, 1, (0, 1)),  # tensor crosses the processes: both hold every row
        ((2, 1, 4), 2, 1, (0, 2)),
        ((2, 1, 4), 2, 2, (1, 2)),
        ((2, 2, 1, 2), 2, 2, (2, 4)),
    ],
)
def test_the_share_of_a_process(monkeypatch, sizes, devices_of_each, here, share):
    monkeypatch.setattr(jax, "process_index", lambda: here)
    devices = np.array([Device(n // devices_of_each) for n in range(8)]).reshape(sizes)
    mesh = SimpleNamespace(devices=devices, shape=dict(zip(AXES[-len(sizes) :], sizes, strict=True)))
    assert data_share(mesh) == share


def test_processes_that_hold_scattered_rows_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    devices = np.array([Device(n % 2) for n in range(8)]).reshape(8, 1, 1)
    with pytest.raises(ValueError, match="unequal parts"):
        data_share(SimpleNamespace(devices=devices, shape={"data": 8, "fsdp": 1, "tensor": 1}))


def test_a_mesh_has_the_sizes_asked_for():
    assert mesh_of(2, 2, 2).axis_types == (AxisType.Explicit,) * 3
    assert dict(make_mesh(MeshConfig(fsdp=2, tensor=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(MeshConfig(data=2, fsdp=-1)).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert sorted(d.id for d in make_mesh(MeshConfig(tensor=4)).devices.flat) == list(range(8))
    assert dict(make_mesh(MeshConfig(replica=2, tensor=2)).shape) == {"replica": 2, "data": 2, "fsdp": 1, "tensor": 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), r"impossible mesh \(3, 1, 1\): 8 device\(s\) cannot be arranged .* choose sizes"),
        (MeshConfig(data=2, fsdp=2, tensor=4), r"impossible mesh \(2, 2, 4\)"),
        (MeshConfig(data=-1, tensor=3), r"impossible mesh \(-1, 1, 3\)"),
        (MeshConfig(data=-1, fsdp=-1), "at most one is -1"),
        (MeshConfig(data=8, fsdp=0), "sizes are 1 or more"),
        (MeshConfig(data=-8, fsdp=-1), "sizes are 1 or more"),
        (
            MeshConfig(replica=3),
            r"\(3, -1, 1, 1\): 8 device\(s\) cannot be arranged as replica x data x fsdp x",
        ),
        (MeshConfig(replica=0), "sizes are 1 or more"),
    ],
)
def test_impossible_meshes(config, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_mesh(config)
    assert "\n" not in str(raised.value)


def test_slices_do_not_share_a_replica():
    devices = [SimpleNamespace(slice_index=n // 4) for n in range(8)]
    with pytest.raises(ValueError, match=r"\(8, 1, 1\): replica=1 must be a multiple of the 2 TPU slices"):
        make_mesh(MeshConfig(replica=1), devices)


def test_dimensions_that_a_mesh_cannot_cut():
    mesh = mesh_of(2, 1, 4)
    check_divisible(mesh, {"heads": ("heads", 12), "batch": ("batch", 2), "width": ("embed", 7)})
    with pytest.raises(
        ValueError, match=r"^impossible mesh \(2, 1, 4\): heads = 6 is not a multiple of tensor = 4; .*"
    ):
        check_divisible(mesh, {"width": ("embed", 7), "heads": ("heads", 6)})
    with pytest.raises(ValueError, match="rows = 3 is not a multiple of data x fsdp = 2"):
        check_divisible(mesh, {"rows": ("batch", 3)})
    with pytest.raises(ValueError, match=r"\(2, 2, 1, 2\): rows = 6 is not a multiple of replica x data x fsdp = 4"):
        check_divisible(mesh_of(2, 1, 2, 2), {"rows": ("batch", 6)})


@pytest.mark.slow  # a minute of two cores
def test_two_processes_train_like_one(tmp_path):
    """Four devices each, over loopback: the same losses and, in the checkpoint that both wrote, the same parameters."""
    script = Path(__file__).with_name("two_processes.py")
    two = [sys.executable, script, tmp_path / "two"]
    subprocess.run(two, check=True, timeout=240)
    config = LoopConfig(steps=6, batch_size=16, accumulate=2, log_every=2, eval_every=3, save_every=3)
    training = toy.training(config, make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup=2), 6))
    mesh = mesh_of(2, 2, 2)
    one = train(training, config, mesh, tmp_path / "one").state
    # The finished run gives what it saved.
    again = train(training, config, mesh, tmp_path / "two").state
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), again.model, one.model)
    numbers = [
        [
            {k: v for k, v in row.items() if "entropy" in k or "norm" in k}
            for row in read_metrics(folder / "metrics.jsonl")
        ]
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert [sorted(row) for row in numbers[0]] == [sorted(row) for row in numbers[1]]
    for first, second in zip(*numbers, strict=True):
        assert second == pytest.approx(first, rel=1e-5)
    assert len(numbers[0]) == 3 + 3  # training rows, evaluations


@pytest.mark.slow  # two processes, as above
def test_sigterm_to_one_of_two_processes_stops_both(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "--sigterm"], check=True, timeout=240, capture_output=True, text=True
    )
    assert done.stdout.count("stopped: saved step") == 1, done.stdout  # only the first process speaks
    with Checkpoints(tmp_path / "checkpoints", keep=None) as checkpoints:
        assert 2 <= checkpoints.steps[-1] < 1000
