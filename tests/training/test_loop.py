"""The loop: what resumes equals what was never interrupted, to the bit; what stops says why."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.listening import listening
from tests.training import toy, train_toy
from training.checkpoints import Checkpoints
from training.loop import Diverged, LoopConfig, train
from training.mesh import MeshConfig, Share, make_mesh
from training.metrics import read_metrics
from training.optimizer import OptimizerConfig, make_optimizer
from training.step import TrainState, make_train_step

CONFIG = LoopConfig(steps=12, batch_size=8, log_every=1, eval_every=4, save_every=3)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=3)
NUMBERS = ("step", "loss", "gradient_norm", "eval_loss")


def run(folder: Path, config: LoopConfig = CONFIG, *, said: list[str] | None = None, optimizer=OPTIMIZER, **changes):
    """The state in the end; `said` is given what is told but for the compilation and the evaluations."""
    training = toy.training(config, make_optimizer(optimizer, 12), **changes)
    mesh = make_mesh(MeshConfig(fsdp=2), jax.devices()[:2])
    with listening() as lines:
        try:
            return train(training, config, mesh, folder).state
        finally:
            if said is not None:
                said += [x for x in lines if x != "compiling the training step" and ": held out " not in x]


def numbers(folder: Path) -> list[dict]:
    """The rows of metrics without what depends on the clock."""
    return [{k: row[k] for k in NUMBERS if k in row} for row in read_metrics(folder / "metrics.jsonl")]


def steps_logged(folder: Path, name: str = "loss") -> list[int]:
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl") if name in row]


def arrays(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def assert_equal(found: TrainState, expected: TrainState) -> None:
    for mine, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, TrainState]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder)


def test_a_run_learns_and_leaves_its_files(undisturbed):
    folder, state = undisturbed
    assert int(state.step) == 12
    rows = read_metrics(folder / "metrics.jsonl")
    assert steps_logged(folder) == list(range(1, 13)) and steps_logged(folder, "eval_loss") == [0, 4, 8, 12]
    assert rows[-1]["eval_loss"] < 0.8 * rows[0]["eval_loss"]
    for row in rows:
        if "loss" in row:
            tokens = toy.batch(8, row["step"] - 1)["weights"]
            assert row["padding"] == pytest.approx(1 - tokens.mean())
            assert row["tokens_per_second"] > 0 and 0 < row["mfu"] < 1
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    (events,) = (folder / "tensorboard").iterdir()
    assert events.read_bytes().count(b"eval_loss") == 4
    with Checkpoints(folder / "checkpoints", keep=None) as checkpoints:
        assert checkpoints.steps == [9, 12]
        assert checkpoints.config(12) == {
            "model": "toy",
            "fixed": {"data": "toy", "batch_size": 8, "seed": 0},
            "left_out": 0,
        }
    assert {p.name for p in folder.iterdir()} == {
        "checkpoints",
        "metrics.jsonl",
        "events.jsonl",
        "tensorboard",
        "loss.png",
    }


def test_two_halves_equal_the_whole(undisturbed, tmp_path):
    """At 7, which is no step of saving or evaluating: the end of a run always is both."""
    said: list[str] = []
    assert int(run(tmp_path, replace(CONFIG, steps=7), said=said).step) == 7
    assert_equal(run(tmp_path, said=said), undisturbed[1])
    assert said == [f"{tmp_path}: resumed at step 7 of 12"]
    extra = {"step": 7, "eval_loss": pytest.approx(numbers(tmp_path)[9]["eval_loss"])}
    assert [row for row in numbers(tmp_path) if row != extra] == numbers(undisturbed[0])


def test_a_finished_run_says_so_and_changes_nothing(undisturbed):
    folder, state = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    said: list[str] = []
    assert_equal(run(folder, said=said, train=None), state)
    assert said == [f"{folder}: finished at step 12 of 12"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_cut_line_of_metrics_is_survived(undisturbed, tmp_path):
    run(tmp_path, replace(CONFIG, steps=8))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 9, "lo')
    run(tmp_path)
    assert numbers(tmp_path) == numbers(undisturbed[0])


def test_sigterm_saves_and_the_rest_equals_the_whole(undisturbed, tmp_path):
    def batches(first: int, share: Share) -> Iterator[toy.HostBatch]:
        for number, batch in enumerate(toy.Rows(CONFIG.batch_size, []).train(first, share), first):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    stopped = run(tmp_path, said=said, train=batches)
    assert 5 <= int(stopped.step) <= 6 and signal.getsignal(signal.SIGTERM) is before
    assert said == [
        f"stopped: saved step {stopped.step} in {tmp_path / 'checkpoints'}; the same command goes on from there"
    ]
    assert_equal(run(tmp_path), undisturbed[1])
    assert numbers(tmp_path) == numbers(undisturbed[0])


@pytest.mark.slow
def test_kills_at_any_time_change_nothing(tmp_path):
    """kill -9 while it starts, steps, logs and saves: the same parameters in the end, no row repeated, none skipped."""
    steps, whole, killed = 24, tmp_path / "whole", tmp_path / "killed"
    expected = train_toy.run(whole, steps)
    command = [sys.executable, train_toy.__file__, killed, str(steps)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    seed, kills = random.randrange(2**32), []
    chance = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        began = len(read_metrics(killed / "metrics.jsonl"))
        while process.poll() is None and len(read_metrics(killed / "metrics.jsonl")) <= began:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.7))
        process.kill()
        process.communicate()
        kills.append(len(read_metrics(killed / "metrics.jsonl")))
    assert kills[0] < steps, "killed too late to test anything"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (seed, kills, done.stderr)
    assert_equal(train_toy.run(killed, steps), expected)
    assert numbers(killed) == numbers(whole), (seed, kills)
    assert sorted(p.name for p in (killed / "checkpoints").iterdir()) == ["23", "24"], (seed, kills)


def test_a_gradient_that_is_no_number_stops_the_run(undisturbed, tmp_path):
    """A batch of broken weights: the good checkpoint stays, no row tells of the step, and the message says it all."""

    with pytest.raises(Diverged, match=r"^step 8: .*loss is nan.* Last good checkpoint: step 6 in .*lower") as e:
        run(tmp_path, train=broken(7))
    assert "\n" not in str(e.value)
    assert steps_logged(tmp_path) == list(range(1, 8))
    said: list[str] = []
    assert_equal(run(tmp_path, said=said), undisturbed[1])
    assert said == [f"{tmp_path}: resumed at step 6 of 12"]
    assert numbers(tmp_path) == numbers(undisturbed[0])


def broken(*numbers: int):
    """The toy's data, of which these batches, from 0 on, have weights that are no numbers."""

    def batches(first: int, share: Share) -> Iterator[toy.HostBatch]:
        for number, batch in enumerate(toy.Rows(CONFIG.batch_size, []).train(first, share), first):
            yield batch | ({"weights": np.full_like(batch["weights"], np.nan)} if number in numbers else {})

    return batches


def test_an_update_that_is_no_number_is_skipped_and_told_of(tmp_path):
    """Neither the model nor the optimizer is changed by it; the run that resumes after it is the same to the bit."""
    config, said = replace(CONFIG, on_nan="skip"), list[str]()
    whole = run(tmp_path / "whole", config, train=broken(7), said=said)
    assert (
        len(said) == 1
        and said[0].startswith("step 8: cross_entropy is nan, ")
        and said[0].endswith("this update is skipped")
    )
    assert steps_logged(tmp_path / "whole") == [*range(1, 8), *range(9, 13)]
    assert steps_logged(tmp_path / "whole", "skipped") == [8]
    assert all(np.isfinite(x).all() for x in arrays(whole)) and int(whole.step) == 12
    assert {int(x) for x in jax.tree.leaves(whole.optimizer) if x.dtype == np.int32} == {11}  # the optimizer's counts
    run(tmp_path / "halves", replace(config, steps=8), train=broken(7))
    assert_equal(run(tmp_path / "halves", config, train=broken(7)), whole)


def test_skipping_ends_where_nothing_is_a_number_any_more(tmp_path):
    config = replace(CONFIG, on_nan="skip", setbacks=2)
    with pytest.raises(Diverged, match=r"^step 8: .*loss is nan.*, 3 updates in a row; stopped. Last good"):
        run(tmp_path, config, train=broken(5, 6, 7, 8))


def test_a_spike_is_as_what_is_no_number(tmp_path, undisturbed):
    """Above the norms of all steps but the largest, that one's update is left out."""
    rows = [row for row in read_metrics(undisturbed[0] / "metrics.jsonl") if "gradient_norm" in row]
    norms = {row["step"]: row["gradient_norm"] for row in rows}
    assert len(norms) == 12
    step = max(norms, key=norms.get)
    below = max(norm for number, norm in norms.items() if number != step)
    config = replace(CONFIG, spike=(norms[step] + below) / 2)
    with pytest.raises(Diverged, match=rf"^step {step}: gradient_norm is [\d.]+, above the spike [\d.]+; stopped"):
        run(tmp_path / "stop", config)
    skipped = run(tmp_path / "skip", replace(config, on_nan="skip"))
    assert steps_logged(tmp_path / "skip", "skipped")[0] == step
    assert step not in steps_logged(tmp_path / "skip")
    assert {int(x) for x in jax.tree.leaves(skipped.optimizer) if x.dtype == np.int32} < {*range(12)}


def test_a_spike_is_refused_where_no_norm_is_told(tmp_path):
    learn = make_train_step(toy.loss, make_optimizer(OPTIMIZER, 12))

    def step(state, batch):
        after, sums = learn(state, batch)
        return after, {"loss": sums["loss"]}

    for on_nan in ("stop", "skip"):
        with pytest.raises(ValueError, match="^spike is 3: this training tells no norm of its gradient"):
            run(tmp_path / on_nan, replace(CONFIG, spike=3.0, on_nan=on_nan), step=step)


def test_a_run_is_rewound_and_leaves_out_the_batches_that_led_to_it(tmp_path):
    """Of steps 7 and 8, from the checkpoint on: the batches are those of a run whose data never had them."""

    def without(first: int, share: Share) -> Iterator[toy.HostBatch]:
        rows = toy.Rows(CONFIG.batch_size, [])
        yield from (rows.share(n if n < 6 else n + 2, share) for n in range(first, 100))

    config, said = replace(CONFIG, on_nan="rewind"), list[str]()
    rewound = run(tmp_path / "rewound", config, train=broken(7), said=said)
    assert said[0] == f"{tmp_path / 'rewound'}: resumed at step 6 of 12" and len(said) == 2
    assert "back to step 6, and on without the 2 batches that came after it (2 are left out so far)" in said[1]
    assert_equal(rewound, run(tmp_path / "without", train=without))
    assert numbers(tmp_path / "rewound") == numbers(tmp_path / "without")
    longer = replace(config, steps=14)
    resumed = run(tmp_path / "rewound", longer, train=broken(7))  # which knows what was left out
    assert_equal(resumed, run(tmp_path / "without", replace(CONFIG, steps=14), train=without))


def test_rewinding_ends_and_begins_again_where_nothing_was_saved(tmp_path):
    config = replace(CONFIG, on_nan="rewind", setbacks=2)
    with pytest.raises(Diverged, match="^step 1: .*loss is nan.* Nothing was saved yet"):
        run(tmp_path, config, train=broken(*range(1, 50)))


def test_a_broken_state_is_never_saved(tmp_path):
    """The loss of a step comes from the parameters before it, so the update is looked at too."""
    wild = replace(OPTIMIZER, learning_rate=1e30, warmup=1, clip=0)
    config = replace(CONFIG, save_every=1)
    with pytest.raises(Diverged, match=r"^step 1: update_norm is inf; stopped. Nothing was saved yet"):
        run(tmp_path, config, optimizer=wild)


def test_checkpoints_none_of_which_is_sound_are_not_overwritten(tmp_path):
    run(tmp_path, replace(CONFIG, steps=4, save_every=2))
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said: list[str] = []
    with pytest.raises(ValueError, match="every checkpoint is damaged; .* delete the folder") as raised:
        run(tmp_path, said=said)
    assert "\n" not in str(raised.value) and len(said) == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_is_written_again(undisturbed, tmp_path):
    run(tmp_path)
    (tmp_path / "checkpoints" / "12" / "state" / "manifest.ocdbt").unlink()
    said: list[str] = []
    assert_equal(run(tmp_path, said=said), undisturbed[1])
    assert "12: damaged checkpoint" in said[0] and said[1].endswith(
        "damaged-checkpoint-12; delete it when you have looked at it"
    )
    assert said[2] == f"{tmp_path}: resumed at step 9 of 12" and (tmp_path / "damaged-checkpoint-12").is_dir()
    assert numbers(tmp_path) == numbers(undisturbed[0])
    said.clear()
    run(tmp_path, said=said)
    assert said == [f"{tmp_path}: finished at step 12 of 12"]


def test_nothing_compiles_after_the_first_steps(tmp_path):
    """One program for the step, one for the evaluation, whether resumed or not; saving may compile once more."""
    compiled: list[str] = []

    def listener(event: str, _: float, **fields) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(fields.get("fun_name", "?")))

    seen: list[tuple[int, int]] = []

    def batches(first: int, share: Share) -> Iterator[toy.HostBatch]:
        for number, batch in enumerate(toy.Rows(CONFIG.batch_size, []).train(first, share), first):
            seen.append((number, len(compiled)))
            yield batch

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.clear_caches()
        for steps in (6, 12):
            run(tmp_path, replace(CONFIG, steps=steps), train=batches)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    counts = dict(seen)
    assert compiled.count("jit(step)") == 2, compiled  # one for each of the two runs
    # Between the first save and the end of each run nothing is compiled.
    assert counts[5] == counts[4] and counts[11] == counts[9], (counts, compiled)
