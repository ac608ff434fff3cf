"""The library prints nothing by itself; commands show what it tells, until it is silenced."""

import logging
import threading

import jax
import pytest

from tests.training import toy
from training import telling
from training.launch import LaunchConfig, joined
from training.loop import LoopConfig, train
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.optimizer import OptimizerConfig, make_optimizer
from training.telling import logger, show, silence, tell


def test_a_program_hears_and_nothing_is_printed(capsys, caplog, monkeypatch):
    monkeypatch.setattr(logger, "handlers", [])  # a command that ran in this process before has called show()
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.INFO, logger.name):
        tell("step 1")
    assert caplog.messages == ["step 1"] and capsys.readouterr() == ("", "")


def test_a_command_prints_each_line_once(shown):
    show()
    tell("步 1 %d")
    assert shown.readouterr() == ("步 1 %d\n", "")


def test_within_a_silence_nothing_is_told(said):
    with pytest.raises(ValueError), silence():
        with silence():
            tell("inner")
        tell("outer")
        raise ValueError
    tell("after")
    assert said == ["after"]


def test_a_silence_is_of_all_threads_and_those_of_two_may_overlap(said):
    first, second = silence(), silence()
    first.__enter__()
    thread = threading.Thread(target=tell, args=["of another thread"])
    thread.start()
    thread.join()
    second.__enter__()
    first.__exit__(None, None, None)
    tell("within the second")
    second.__exit__(None, None, None)
    tell("after")
    assert said == ["after"]


def test_a_bar_that_begins_within_a_silence_is_off(shown):
    with silence():
        bar = progress_bar(0, 2)
    bar.update(2)
    bar.close()
    assert shown.readouterr() == ("", "")
    progress_bar(0, 2).close()
    assert "0/2" in shown.readouterr().err


def test_a_program_hears_what_is_told_and_sees_no_bar(tmp_path, capsys, said):
    tx = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup=2), 2)
    config = LoopConfig(steps=2, batch_size=16, eval_every=1, save_every=2)
    train(toy.training(config, tx), config, make_mesh(MeshConfig(data=2), jax.devices()[:2]), tmp_path)
    assert [line[:17] for line in said if "held out" in line] == [f"step {n}: held out " for n in range(3)]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("process", "lines"), [(0, ["step 1"]), (1, [])])
def test_of_several_processes_the_first_speaks(monkeypatch, said, process, lines):
    monkeypatch.setattr(telling, "_silences", [])
    monkeypatch.setattr(jax, "process_index", lambda: process)
    joined(LaunchConfig())
    tell("step 1")
    assert said == lines
