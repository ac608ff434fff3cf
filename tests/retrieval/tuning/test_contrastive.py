"""The losses are their formulas; a mesh and gradient caching change nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from retrieval.tuning.contrastive import LOSSES, cached_gradients
from training.mesh import MeshConfig, make_mesh
from training.partition import spec

SENTENCES = {"simcse": 2, "pairs": 3, "cosent": 2}


def vectors_of(loss: str, examples: int = 16, width: int = 6) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((examples, SENTENCES[loss], width)).astype(np.float32)
    scores = random.integers(0, 3, examples).astype(np.float32)
    texts = np.arange(examples * SENTENCES[loss], dtype=np.int32).reshape(examples, -1)
    if loss == "pairs":  # 3 and 5 have one answer, 7's question is the answer of 8, 9's negative is the answer of 10
        for one, other in (((3, 1), (5, 1)), ((7, 0), (8, 1)), ((9, 2), (10, 1))):
            vectors[one], texts[one] = vectors[other], texts[other]
    return vectors, {"scores": scores, "texts": texts}


def by_hand(loss: str, vectors: np.ndarray, scores: np.ndarray, texts: np.ndarray) -> float:
    v = vectors.astype(np.float64)
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    if loss == "simcse":
        views = v.reshape(-1, v.shape[-1])
        s = 20 * views @ views.T - 1e12 * np.eye(len(views))
        return float(np.mean([logsumexp(row) - row[i ^ 1] for i, row in enumerate(s)]))
    if loss == "pairs":
        s, found = 20 * v[:, 0] @ np.concatenate([v[:, 1], v[:, 2]]).T, np.concatenate([texts[:, 1], texts[:, 2]])
        against = [[j == i or found[j] not in texts[i, :2] for j in range(len(found))] for i in range(len(s))]
        assert np.sum(~np.array(against)) == 4
        return float(
            np.mean([logsumexp(row[kept]) - row[i] for i, (row, kept) in enumerate(zip(s, against, strict=True))])
        )
    c = 20 * (v[:, 0] * v[:, 1]).sum(-1)
    terms = [c[k] - c[i] for i in range(len(c)) for k in range(len(c)) if scores[i] > scores[k]]
    return float(logsumexp([0, *terms]))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_its_formula_on_one_device_and_on_eight(loss: str) -> None:
    vectors, batch = vectors_of(loss)
    run = jax.jit(LOSSES[loss])
    total, weight = run(vectors, batch)["loss"]
    wanted = by_hand(loss, vectors, **batch)
    assert float(total / weight) == pytest.approx(wanted, rel=1e-5)
    with jax.set_mesh(make_mesh(MeshConfig(data=4, fsdp=2))):
        cut = jax.tree.map(lambda x: jax.device_put(x, spec("batch", *(None for _ in x.shape[1:]))), (vectors, batch))
        total, weight = run(*cut)["loss"]
    assert float(total / weight) == pytest.approx(wanted, rel=1e-5)


def test_simcse_counts_what_finds_its_other_view() -> None:
    vectors, batch = vectors_of("simcse")
    vectors[:, 1] = vectors[:, 0]
    assert [float(x) for x in LOSSES["simcse"](vectors, batch)["accuracy"]] == [32, 32]


def toy_embed(model: dict[str, jax.Array], batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, dict]:
    noise = jax.random.normal(key, (model["kernel"].shape[1],))
    return jnp.tanh(jnp.einsum("bsd,de->bse", batch["x"], model["kernel"])) + 0.1 * noise[None, None], {}


def gradients_of(loss: str, microbatches: int, mesh: MeshConfig | None) -> tuple[float, np.ndarray]:
    vectors, batch = vectors_of(loss)
    kernel = np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)
    # Row r goes to microbatch r % microbatches, as training.loop.to_mesh has it.
    cut = {
        name: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1) for name, x in ({"x": vectors} | batch).items()
    }
    keys = jnp.stack([jax.random.key(7)] * microbatches)
    run = jax.jit(cached_gradients(toy_embed, LOSSES[loss]))
    if mesh is None:
        sums, found = run({"kernel": kernel}, cut, keys)
    else:
        with jax.set_mesh(make_mesh(mesh)):
            cut = {
                name: jax.device_put(x, spec(None, "batch", *(None for _ in x.shape[2:]))) for name, x in cut.items()
            }
            sums, found = run({"kernel": jax.device_put(kernel, spec(None, None))}, cut, keys)
    return float(sums["loss"][0]), np.asarray(found["kernel"])


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_caching_and_a_mesh_give_the_plain_gradient(loss: str) -> None:
    wanted = gradients_of(loss, 1, None)
    for microbatches, mesh in ((2, None), (1, MeshConfig(data=8)), (2, MeshConfig(data=4, fsdp=2))):
        found = gradients_of(loss, microbatches, mesh)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-5 * np.abs(wanted[1]).max())


def test_a_large_batch_of_cosent_does_not_overflow() -> None:
    vectors, batch = vectors_of("cosent")
    total, _ = partial(LOSSES["cosent"], scale=1e4)(vectors, batch)["loss"]
    assert np.isfinite(float(total))
