"""What a run tells survives kills, and what it quotes is counted right."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from training.mesh import MeshConfig, make_mesh
from training.metrics import Metrics, Speed, peak_flops, plot_curves, read_metrics


def test_rows_are_read_as_written(tmp_path):
    metrics = Metrics(tmp_path, first_step=0)
    metrics.write(1, {"loss": 0.1, "padding": 1e-9})
    metrics.write(2, {"loss": 1 / 3})
    metrics.close()
    rows = [{"step": 1, "loss": 0.1, "padding": 1e-9}, {"step": 2, "loss": 1 / 3}]
    assert read_metrics(tmp_path / "metrics.jsonl") == rows
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_cut_anywhere_is_left_out(tmp_path, cut):
    line = json.dumps({"step": 12, "loss": 3.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 11}\n' + line[:cut])
    assert read_metrics(path) == [{"step": 11}]
    Metrics(tmp_path, first_step=11).close()
    assert path.read_text() == '{"step": 11}\n'


@pytest.mark.parametrize(("first", "kept"), [(0, []), (1, [1]), (3, [1, 2, 2, 3]), (9, [1, 2, 2, 3, 4])])
def test_a_resumed_run_writes_the_rows_after_its_checkpoint_again(tmp_path, first, kept):
    """Of a run without a checkpoint yet, also the evaluation before its first step."""
    rows = [1, 2, 2, 3, 4] if first else [0, 1, 2]
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in rows))
    Metrics(tmp_path, first_step=first).close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == kept


@pytest.mark.parametrize(("kind", "shown"), [("cpu", True), ("NVIDIA L40S", True), ("NVIDIA of tomorrow", False)])
def test_utilisation_is_of_a_peak_that_is_known(kind, shown):
    device = SimpleNamespace(device_kind=kind, platform="gpu")
    mesh = SimpleNamespace(devices=np.array([device] * 2), size=2)
    speed = Speed(SimpleNamespace(count=None, flops_per_row=10**12), 4, mesh, 1)
    speed.add({})
    values = speed.values()
    assert {*values} == {"steps_per_second", *["mfu"] * shown}
    if shown:
        assert values["mfu"] == pytest.approx(values["steps_per_second"] * 4e12 / (2 * peak_flops(kind)))


def test_the_peak_of_a_cpu_is_measured_under_any_mesh():
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=2))):
        peak = peak_flops("cpu")
    assert 1e8 < peak < 1e14


def test_a_curve_is_drawn(tmp_path):
    rows = [{"step": step, "cross_entropy": 9 - step} for step in range(4)] + [{"step": 3, "eval_cross_entropy": 6}]
    plot_curves(rows, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
