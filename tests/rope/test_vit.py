"""ViT: what each encoding may and may not see, images larger than the trained ones, and the mesh."""

from dataclasses import replace
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rope.positions.angles import grid
from rope.positions.rotary import rotate
from rope.vit import model as vit
from rope.vit import positions as vit_positions
from rope.vit.config import Positions, ViTConfig
from rope.vit.model import init, rotation_of
from tests.figures import tied
from training.mesh import MeshConfig, make_mesh

stretched = jax.jit(vit_positions.stretched, static_argnames="size")
forward, encode = (jax.jit(f, static_argnames="config") for f in (vit.forward, vit.encode))
ALL = get_args(Positions)
RELATIVE = ("axial", "mixed", "mixed-layers", "golden", "normalised", "flat", "none")


def config(positions, **changes):
    sizes = {"width": 32, "feed_forward": 64, "heads": 4, "layers": 1, "patch": 2, "channels": 1, "classes": 10}
    return ViTConfig(
        positions=positions, dropout=0.0, attention_dropout=0.0, **sizes | {"grid": (4, 4), "theta": "10^-t"} | changes
    )


def images(*shape):
    return jax.random.uniform(jax.random.key(1), shape)


def model_of(c, scale=10.0):
    """Weights large enough that positions matter to the last digits that are compared."""
    return jax.tree.map(
        lambda x: x * scale if x.ndim == 3 and x.shape[1] > 4 else x,
        jax.jit(init, static_argnums=0)(c, jax.random.key(0)),
    )


@pytest.mark.parametrize("positions", ALL)
def test_only_differences_of_coordinates_matter_to_rotary_positions(positions):
    c = config(positions)
    model, x, places = model_of(c), images(2, 8, 12, 1), grid(4, 6)
    logits = partial(forward, model, x, c)
    np.testing.assert_array_equal(logits(), logits(coordinates=places))
    change = np.abs(logits(coordinates=places + jnp.array([[3.5, -1.25]])) - logits()).max()
    assert change < 2e-5 if positions in RELATIVE else change > 1e-3
    # What is not the same for all: two axes are told apart, except where there are none.
    turned = np.abs(logits(coordinates=places[:, ::-1]) - logits()).max()
    assert turned == 0 if positions == "none" else turned > 1e-3


def test_figures_of_docs_are_of_these_models():
    x = images(2, 8, 12, 1)
    tied("docs/vit.md", "digits, forward", {name: forward(model_of(c := config(name)), x, c) for name in ALL})


@pytest.mark.parametrize("positions", ["axial", "mixed", "golden", "flat"])
def test_two_patches_side_by_side_score_alike_anywhere_and_on_any_canvas_but_by_number(positions):
    c = config(positions)
    model = model_of(c)
    query, key = jax.random.normal(jax.random.key(2), (2, 1, 2, c.heads, c.head_size))

    def score(first, second, columns):
        turn = rotation_of(model, jnp.array([[first, second]], jnp.float32), (4, columns), c)
        return jnp.einsum("NH,NH->N", rotate(query, turn)[0, 0], rotate(key, turn)[0, 1])

    here = score((0, 1), (1, 2), 4)
    np.testing.assert_allclose(score((2, 0), (3, 1), 4), here, atol=1e-5)
    wider = np.abs(score((2, 0), (3, 1), 8) - here).max()
    assert wider > 1e-2 if positions == "flat" else wider < 1e-5
    # The last patch of a row and the first of the next: neighbours by number, far apart by place.
    wrapped = np.abs(score((0, 3), (1, 0), 4) - score((0, 0), (0, 1), 4)).max()
    assert wrapped < 1e-5 if positions == "flat" else wrapped > 1e-2


@pytest.mark.parametrize("positions", ["axial", "mixed", "mixed-layers", "golden", "normalised", "none"])
def test_what_a_patch_becomes_moves_with_the_patch(positions):
    """With the empty patches around as many as before: the canvas is a torus of which a block moves by two patches."""
    c = config(positions)
    model = model_of(c)
    x = images(2, 8, 12, 1)
    hidden = encode(model, x, c).reshape(2, 4, 6, -1)
    places = grid(4, 6).reshape(4, 6, 2)
    # The same patches in another order, each with its own coordinates, two to the right of where they were.
    moved = jnp.roll(places, 2, 1).reshape(-1, 2) + jnp.array([[0, 2]])
    there = encode(model, jnp.roll(x, 4, 2), c, coordinates=moved).reshape(2, 4, 6, -1)
    np.testing.assert_allclose(jnp.roll(hidden, 2, 2), there, atol=5e-5)


@pytest.mark.parametrize("positions", ALL)
def test_images_of_any_size_and_coordinates_for_each(positions):
    c = config(positions)  # a table of 4 x 4
    model, x = model_of(c), images(2, 8, 12, 1)
    places = jnp.stack([grid(4, 6) + 0.5, grid(4, 6) * 0.25])
    both = forward(model, x, c, coordinates=places)
    assert both.shape == (2, 10)
    for n in range(2):
        np.testing.assert_allclose(both[n], forward(model, x, c, coordinates=places[n])[n], atol=2e-5)


def test_interpolation_is_exact_at_the_tables_size_and_linear_between():
    table = jax.random.normal(jax.random.key(0), (3, 5, 4))
    np.testing.assert_array_equal(stretched(table, grid(3, 5), (3, 5)), table.reshape(15, 4))
    # Twice as large: as jax.image.resize, a reference of the usual practice; and a plane stays a plane inside.
    twice = stretched(table, grid(6, 10), (6, 10)).reshape(6, 10, 4)
    np.testing.assert_allclose(twice, jax.image.resize(table, (6, 10, 4), "bilinear"), atol=1e-5)
    half = stretched(table, jnp.array([[0.5, 2.0]]), (3, 5))
    np.testing.assert_allclose(half[0], (table[0, 2] + table[1, 2]) / 2, atol=1e-6)
    np.testing.assert_array_equal(stretched(table, jnp.array([[-3.0, 9.0]]), (3, 5))[0], table[0, 4])


@pytest.mark.parametrize("positions", ALL)
def test_a_batch_of_no_images(positions):
    c = config(positions)
    assert vit.forward(init(c, jax.random.key(0)), images(0, 8, 12, 1), c).shape == (0, 10)


def test_layers_turn_by_frequencies_of_their_own():
    c = config("mixed-layers", layers=2)
    model, x = model_of(c), images(2, 8, 12, 1)
    assert model.position.shape == (2, 4, 2, 4) and np.abs(model.position[0] - model.position[1]).max() > 0.1
    of_one = model.replace(position=model.position[:1].repeat(2, 0))
    alike = model.replace(position=model.position[0])
    np.testing.assert_allclose(forward(of_one, x, c), forward(alike, x, config("mixed", layers=2)), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: vit.forward(model.replace(position=p), x, c).std()))(model.position)
    assert (np.abs(gradient).max((1, 2, 3)) > 1e-6).all()
    for layer in (0, 1):
        changed = model.replace(position=model.position.at[layer].multiply(2))
        assert np.abs(forward(changed, x, c) - forward(model, x, c)).max() > 1e-3


def test_normalised_coordinates_are_stretched_in_training_alone():
    c = config("normalised")
    model, x = model_of(c), images(2, 8, 12, 1)
    still, stretched = (replace(c, rescale=rescale) for rescale in (1.0, 4.0))
    np.testing.assert_array_equal(forward(model, x, stretched), forward(model, x, still))
    drawn = [forward(model, x, stretched, key=jax.random.key(n)) for n in (0, 1)]
    np.testing.assert_allclose(forward(model, x, still, key=jax.random.key(0)), forward(model, x, c), atol=1e-5)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    # An image whose pixels are four times as many, by patches twice as high: the same patches at the same places.
    turned = rotation_of(model, grid(2, 3), (2, 3), c)
    fine = rotation_of(model, 2 * grid(2, 3) + 0.5, (4, 6), c)
    np.testing.assert_allclose(turned.sin, fine.sin, atol=1e-5)


def test_dropout_comes_with_a_key():
    c = replace(config("axial"), dropout=0.5)
    model, x = model_of(c), images(2, 8, 12, 1)
    first, same, other = (forward(model, x, c, key=jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3 and np.abs(first - forward(model, x, c)).max() > 1e-3


@pytest.mark.parametrize("positions", ["mixed", "learned", "mixed-layers", "golden", "spherical", "lie"])
def test_cut_over_a_mesh_as_on_one_device(positions):
    c, x = config(positions), images(8, 8, 12, 1)

    def objective(model, x):
        logits = vit.forward(model, x, c, key=jax.random.key(3))
        return jnp.sum(logits**2), logits

    def compute(x):
        model = init(c, jax.random.key(0, impl="rbg"))
        return model, jax.value_and_grad(objective, has_aux=True)(model, x)

    alone = jax.jit(compute)(x)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        cut = jax.jit(compute)(jax.device_put(x, PartitionSpec(("data", "fsdp"))))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), alone, cut)
    position = {
        "mixed": ("tensor", None, None),
        "learned": (None, None, "fsdp"),
        "mixed-layers": (None, "tensor", None, None),
        "spherical": ("tensor", None, None),
        "lie": ("tensor", None, None, None, None),
    }.get(positions)
    assert cut[0].position is None if position is None else cut[0].position.sharding.spec == PartitionSpec(*position)
    assert cut[0].blocks.query.kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor")


@pytest.mark.parametrize(
    ("positions", "changes", "message"),
    [
        ("axial", {"width": 24}, "width / heads is 6: axial positions need a multiple of 4"),
        ("flat", {"width": 20}, "width / heads is 5: flat positions need an even head size"),
        ("mixed", {"width": 36}, "width / heads is 9: mixed positions need an even head size"),
        ("sinusoidal", {"width": 30, "heads": 2}, "width is 30: sinusoidal positions need a multiple of 4"),
        ("learned", {"grid": (0, 4)}, "grid is"),
        ("golden", {"width": 36}, "width / heads is 9: golden positions need an even head size"),
        ("normalised", {"width": 24}, "width / heads is 6: normalised positions need a multiple of 4"),
        ("spherical", {"width": 8}, "width / heads is 2: spherical positions turn 3 dimensions together"),
        ("lie", {"width": 4}, "width / heads is 1: lie positions turn 2 dimensions together"),
        ("normalised", {"rescale": 0.5}, "rescale is 0.5: it must be 1 or more"),
        ("axial", {"theta": "fast"}, "theta is 'fast'"),
        ("axial", {"patch": 0}, "patch is 0: it must be 1 or more"),
    ],
)
def test_impossible_models_are_refused(positions, changes, message):
    with pytest.raises(ValueError, match=message):
        config(positions, **changes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 9, 1), "images of 8 x 9 pixels: both must be multiples of the patch, 2"),
        ((1, 0, 8, 1), "images of 0 x 8 pixels"),
        ((1, 8, 8, 3), r"images of shape \(1, 8, 8, 3\): the model reads \[batch, height, width, 1\]"),
        ((8, 8, 1), "images of shape"),
    ],
)
def test_other_images_are_refused(shape, message):
    c = config("axial")
    with pytest.raises(ValueError, match=message):
        vit.encode(None, jnp.zeros(shape), c)
