"""Which layers are recomputed."""

import jax
import jax.numpy as jnp
import pytest

from rope.layers.primitives import matmul, recomputed


@pytest.mark.parametrize(("device", "same"), [("TPU v5 lite", "dots"), ("cpu", "none"), ("NVIDIA H200", "none")])
def test_auto_recomputes_what_pays_on_the_device(monkeypatch, device, same):
    monkeypatch.setattr("rope.layers.primitives.device_kind", lambda: device)

    def program(remat: str) -> str:
        def body(x):
            return jnp.sin(matmul(jnp.cos(x), jnp.ones((4, 4)), (None, None))).sum()

        return str(jax.make_jaxpr(jax.grad(recomputed(body, remat)))(jnp.ones((1, 2, 4))))

    made = {remat: program(remat) for remat in ("none", "dots", "full")}
    assert len(set(made.values())) == 3
    assert program("auto") == made[same]
