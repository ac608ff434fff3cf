"""Traces: of the steps asked for, told of, and none where none is asked for."""

import jax
import numpy as np
import pytest

from tests.listening import listening
from tests.training import toy
from training.launch import LaunchConfig, hold
from training.loop import LoopConfig, train
from training.mesh import MeshConfig, make_mesh
from training.optimizer import OptimizerConfig, make_optimizer
from training.profile import profiled, traced

CONFIG = LoopConfig(steps=4, batch_size=8, log_every=1, eval_every=4, save_every=4)


def run(folder, profile):
    training = toy.training(CONFIG, make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup=3), 12))
    with listening() as lines, hold(folder, LaunchConfig(profile=profile)):
        state = train(training, CONFIG, make_mesh(MeshConfig(), jax.devices()[:1]), folder).state
    return state, lines


def steps_in(folder) -> set[int]:
    """The numbers of the steps that a trace has."""
    (file,) = folder.rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    events = (event for plane in planes for line in plane.lines for event in line.events)
    return {int(value) for e in events if e.name == "train" for name, value in e.stats if name == "step_num"}


def test_the_steps_asked_for_are_traced_and_nothing_else_changes(tmp_path):
    plain, lines = run(tmp_path / "plain", None)
    assert not (tmp_path / "plain" / "profile").exists()
    state, lines = run(tmp_path / "traced", "2:3")
    assert steps_in(tmp_path / "traced" / "profile") == {2, 3}
    assert f"{tmp_path / 'traced' / 'profile'}: the trace of steps 2 to 3" in lines
    for mine, other in zip(jax.tree.leaves(state.model), jax.tree.leaves(plain.model), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow  # the other of two traces
def test_a_run_that_ends_within_leaves_what_it_has_and_tells_that_alone(tmp_path):
    _, lines = run(tmp_path, "3:9")
    assert steps_in(tmp_path / "profile") == {3, 4}
    assert lines[-1] == f"{tmp_path / 'profile'}: the trace of steps 3 to 4"


def test_a_trace_ends_once_its_last_step_is_computed(tmp_path):
    step = jax.jit(lambda x: jax.lax.fori_loop(0, 200, lambda _, y: x @ y, x))
    with profiled("1:9", tmp_path):
        made = traced(1, step, jax.numpy.zeros((512, 512)))
        assert not made.is_ready()
    assert made.is_ready()


def test_a_step_that_fails_leaves_the_trace_of_those_before(tmp_path):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with listening() as lines, pytest.raises(ZeroDivisionError), profiled("1:9", tmp_path):
        state = traced(1, step, jax.numpy.zeros(1))
        traced(2, lambda x: step(x) / (1 // 0), state)
    assert steps_in(tmp_path) >= {1} and lines[-1].endswith("the trace of steps 1 to 1")


def test_steps_that_are_not_run_are_said(tmp_path):
    assert run(tmp_path, "90:91")[1][-1] == "--profile 90:91: no such step was run, so nothing was traced"


@pytest.mark.parametrize("text", ["", "3", "0:2", "5:4", "a:b", "1:2:3", "-1:3"])
def test_other_steps_are_refused(text):
    with pytest.raises(ValueError, match="it must be FIRST:LAST"):
        LaunchConfig(profile=text)
