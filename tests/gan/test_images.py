"""A GAN by the engine: the mesh and a resumption change nothing, samples and measures are left behind."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan.experiments.gans import read_data
from gan.experiments.images import ImagesConfig, images, recipe_of
from gan.program import init, step
from training.launch import LaunchConfig
from training.loop import LoopConfig
from training.mesh import MeshConfig
from training.metrics import read_metrics

CONFIG = ImagesConfig(
    critic="gp:weight=1",
    network="fc",
    n_critic=2,
    latent=4,
    scored=40,
    loop=LoopConfig(steps=2, batch_size=16, eval_every=2, save_every=2, eval_batches=1, log_every=1),
    launch=LaunchConfig(mesh=MeshConfig(data=4, fsdp=2)),
)


def test_neither_a_mesh_nor_a_resumption_changes_a_run(tmp_path):
    """To the bit when resumed; from one device only rounding, which Adam enlarges from step to step."""
    once, twice = (replace(CONFIG, folder=str(tmp_path / name)) for name in ("once", "twice"))
    longer = replace(CONFIG.loop, steps=3)
    found = images(replace(once, loop=longer)).state
    images(twice)
    with pytest.raises(ValueError, match="its run had scored 40, not 60"):  # of which it has trained on 20
        images(replace(twice, loop=longer, scored=60))
    with pytest.raises(ValueError, match="its run had critic gp:weight=1, not gp:weight=2"):
        images(replace(twice, loop=longer, critic="gp:weight=2"))
    with jax.enable_x64(True):  # as JAX_ENABLE_X64 does
        resumed = images(replace(twice, loop=longer)).state
    for one, other in zip(jax.tree.leaves(found.model), jax.tree.leaves(resumed.model), strict=True):
        np.testing.assert_array_equal(one, other)
    data = read_data(None, CONFIG.scored)
    recipe = recipe_of(CONFIG, data)
    state, run = init(recipe, 0), jax.jit(lambda state, batch: step(recipe, state, batch))
    metrics = [row for row in read_metrics(tmp_path / "twice" / "metrics.jsonl") if "kr" in row]
    assert [row["step"] for row in metrics] == [1, 2, 3]
    for number, tolerance in enumerate((1e-6, 1e-4, 1e-3)):
        rows = np.random.default_rng([0, number]).integers(0, len(data.train), (16, 3))
        state, sums = run(state, {"images": jnp.asarray(data.train[rows])[None]})
        assert metrics[number]["kr"] == pytest.approx(float(sums["kr"][0]), abs=tolerance)
    assert {"samples-2.png", "samples-3.png", "loss.png"} <= {path.name for path in (tmp_path / "twice").iterdir()}


def test_what_cannot_be(tmp_path):
    config = replace(CONFIG, folder=str(tmp_path))
    for changed, expected in (
        ({"loop": replace(CONFIG.loop, batch_size=12)}, "batch size"),
        ({"loop": replace(CONFIG.loop, batch_size=1760)}, "fewer than --loop.batch-size 1760"),
    ):
        with pytest.raises(ValueError, match=expected):
            images(replace(config, **changed))
    with pytest.raises(ValueError, match="weight is 0"):
        images(replace(config, critic="gp:weight=0"))
    with pytest.raises(ValueError, match="critic 'gan': it must be one of wc, gp"):
        replace(CONFIG, critic="gan")
    with pytest.raises(ValueError, match="rate is 0"):
        replace(CONFIG, rate=0)
    with pytest.raises(ValueError, match="loop.accumulate must be 1"):
        replace(CONFIG, loop=replace(CONFIG.loop, accumulate=2))
