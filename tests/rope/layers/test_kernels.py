"""docs/pretrain.md's table of what computes attention is what `choose` says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rope.layers.attention import attention
from rope.layers.kernels import KERNELS, Asked, choose
from rope.layers.masks import Segments
from rope.positions.buckets import RelativeBias

DOCS = Path(__file__).parents[3] / "docs" / "pretrain.md"
NAMES = ("xla", *KERNELS)


def like(length: int = 128, size: int = 64, dtype: Any = jnp.bfloat16) -> dict[str, Any]:
    return dict.fromkeys(("query", "key", "value"), jax.ShapeDtypeStruct((8, length, 4, size), dtype))


PLAIN = Asked(**like(), bias=None, mask=None, dropped=False, long=False)
DENSE = jax.ShapeDtypeStruct((8, 4, 128, 128), jnp.float32)
CASES = {
    "T5's bias of relative positions": {"bias": RelativeBias(jnp.zeros((32, 4)), bidirectional=True)},
    "any other bias [B, N, T, S]": {"bias": DENSE},
    "packed rows, and causal": {"mask": Segments(*2 * (jnp.ones((8, 128), jnp.int32),), causal=True)},
    "a mask that is neither": {"mask": jax.ShapeDtypeStruct((8, 1, 128, 128), bool)},
    "dropout of weights": {"dropped": True},
    "ReRoPE": {"long": True},
    "float32": like(dtype=jnp.float32),
    "float16": like(dtype=jnp.float16),
    "heads of 36": like(size=36),
    "heads of 256": like(size=256),
    "odd lengths": like(127),
    "32,768 keys": like(32_768),
}
AUTO = "a mesh that the compiler cuts (Auto), as in decoding"


def legal(name: str, asked: Asked) -> str:
    try:
        choose(name, asked)
    except ValueError as error:
        assert f"attention by {name} " in str(error)
        return "no"
    return "yes"


def table() -> dict[str, list[str]]:
    lines = DOCS.read_text(encoding="utf-8").split("| | `xla` |")[1].split("\n\n")[0].splitlines()[3:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {what: said for what, *said in cells}


@pytest.mark.parametrize("what", CASES)
def test_the_table_of_what_computes_attention(what):
    assert [legal(name, replace(PLAIN, **CASES[what])) for name in NAMES] == table()[what]


def test_the_table_on_a_mesh_of_auto_axes():
    found = []

    def of(x):
        found.extend(legal(name, PLAIN) for name in NAMES)
        return x

    with jax.set_mesh(jax.make_mesh((8, 1), ("data", "fsdp"))):
        auto = jax.sharding.auto_axes(of, out_sharding=jax.P("data"))
        jax.eval_shape(auto, jax.device_put(np.zeros(8), jax.P("data")))
    assert found == table()[AUTO]


def test_the_table_has_no_other_lines():
    assert set(table()) == {*CASES, AUTO}


@pytest.mark.parametrize(
    ("device", "keys", "size", "dtype", "fits"),
    [
        ("TPU v5 lite", 16_384, 64, "bfloat16", True),
        ("TPU v5 lite", 16_384, 256, "bfloat16", False),  # this and the next false one the compiler refuses
        ("TPU v5", 16_384, 64, "bfloat16", True),
        ("TPU v4", 2048, 64, "bfloat16", True),
        ("TPU v4", 16_384, 64, "bfloat16", False),
        ("TPU from tomorrow", 16_384, 64, "bfloat16", False),
    ],
)
def test_flash_is_legal_where_keys_have_room(monkeypatch, device, keys, size, dtype, fits):
    monkeypatch.setattr("rope.layers.kernels.device_kind", lambda: device)
    asked = replace(PLAIN, **like(keys, size, dtype))
    assert choose("auto", asked) is (KERNELS["flash"] if fits else None)
    assert legal("flash", asked) == ("yes" if fits else "no")


HALF = jax.ShapeDtypeStruct((8, 128, 4, 64), jnp.float32)
NONE = jax.ShapeDtypeStruct((8, 0, 4, 64), jnp.bfloat16)
WIDE = jax.ShapeDtypeStruct((8, 16_384, 4, 512), jnp.bfloat16)


@pytest.mark.parametrize(
    "asked", [{"value": HALF}, {"query": HALF}, {"key": NONE, "value": NONE}, {**like(16_384), "value": WIDE}]
)
def test_flash_is_not_legal_for(asked):
    assert legal("flash", replace(PLAIN, **asked)) == "no"


@pytest.mark.parametrize(("size", "of_values"), [(192, 192), (130, 130), (64, 192), (128, 192), (192, 64)])
def test_heads_of_any_size(size, of_values):
    query, key = (jax.random.normal(jax.random.key(n), (2, 24, 2, size)) for n in (0, 1))
    value = jax.random.normal(jax.random.key(2), (2, 24, 2, of_values))
    mine, theirs = (attention(query, key, value, implementation=by) for by in ("flash", "xla"))
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_whatever_the_mesh_has_of_it(monkeypatch):
    """Arrays that are whole on every device are cut for the kernel, and its result is as the queries were; what cannot
    be cut is not legal."""
    query, key, value = (jax.random.normal(jax.random.key(n), (4, 24, 4, 16)) for n in range(3))
    table, mask = jax.random.normal(jax.random.key(3), (32, 4)), Segments(*2 * (jnp.ones((4, 24), jnp.int32),))

    def of(implementation, query, key, value, table, mask):
        bias = RelativeBias(table, bidirectional=True)
        return attention(query, key, value, bias=bias, mask=mask, implementation=implementation)

    alone = of("xla", query, key, value, table, mask)
    with jax.set_mesh(jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))):
        given = jax.device_put((query, key, value, table, mask), jax.P())
        out = jax.jit(of, static_argnums=0)("flash", *given)
        assert jax.typeof(out).sharding.spec == jax.typeof(given[0]).sharding.spec
        np.testing.assert_allclose(out, alone, atol=1e-5)
        monkeypatch.setattr("rope.layers.kernels.device_kind", lambda: "TPU v5 lite")
        for shape in ((3, 24, 4, 16), (4, 24, 3, 16)):
            asked = replace(PLAIN, **dict.fromkeys(("query", "key", "value"), jax.ShapeDtypeStruct(shape, jnp.float32)))
            assert choose("auto", asked) is None and legal("flash", asked) == "no"
