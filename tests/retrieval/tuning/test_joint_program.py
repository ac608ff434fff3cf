"""Both losses and their gradient, cut over devices and cached as plain."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from retrieval.tuning.contrastive import alike, cached_gradients, distillation, sums_of
from retrieval.tuning.joint_program import vectors_and_writing
from tests.retrieval.tuning.small_questions import STILL, batches, first_device, questions
from tests.retrieval.vectors.test_encoding import source
from training.loop import LoopConfig, to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh


def gradient(loop: LoopConfig, mesh: jax.sharding.Mesh, distils: bool):
    teacher = np.random.default_rng(0).standard_normal((len(questions().texts), 7)).astype(np.float32)
    batch = batches(loop, mesh, teacher=teacher if distils else None).batch(0, WHOLE)
    embed = lambda model, rows, key: vectors_and_writing(model, rows, None, STILL)  # noqa: E731
    loss, weights = distillation if distils else alike, (0.7, 1.3)
    with jax.set_mesh(mesh):
        arrays = jax.tree.map(lambda x: jax.device_put(x, jax.NamedSharding(mesh, jax.P())), source(STILL).model)
        keys = jax.random.split(jax.random.key(0), loop.accumulate)
        sums, found = jax.jit(cached_gradients(embed, loss, weights))(
            arrays, to_mesh(batch, mesh, loop.accumulate), keys
        )
        if loop.accumulate == 1:
            again = jax.jit(sums_of(embed, loss, weights))(arrays, to_mesh(batch, mesh), None)
            assert float(again["loss"][0]) == pytest.approx(float(sums["loss"][0]), rel=1e-5)
    means = {name: float(s) / float(w) for name, (s, w) in sums.items()}
    assert means["loss"] == pytest.approx(0.7 * means["vectors"] + 1.3 * means["writing"], rel=1e-5)
    return means, jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("distils", [pytest.param(False, marks=pytest.mark.slow), True])
def test_eight_devices_and_gradient_caching_change_nothing(distils: bool) -> None:
    loop = LoopConfig(batch_size=8, seed=2)
    wanted = gradient(loop, first_device(), distils)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted[1]))
    for changed, mesh in ((replace(loop, accumulate=4), first_device()), (loop, make_mesh(MeshConfig(data=4, fsdp=2)))):
        found = gradient(changed, mesh, distils)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * largest), found[1], wanted[1])
