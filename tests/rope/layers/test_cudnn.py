"""Attention by cuDNN, lowered for a GPU that is not here: what it is given, and what is legal for it.

That it computes the same as XLA is seen on a GPU alone: python -m benchmarks.cudnn.
"""

import re

import jax
import jax.numpy as jnp
import pytest

from rope.layers.attention import attention
from rope.layers.masks import Segments
from rope.positions.buckets import RelativeBias

ROWS, LENGTH, HEADS = 2, 128, 4


@pytest.fixture(autouse=True)
def cudnn(monkeypatch):
    """jax asks the CUDA libraries for cuDNN's version before it lowers anything for it; there are none on a CPU."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)


def lowered(implementation="cudnn", *, queries=LENGTH, keys=LENGTH, groups=HEADS, size=64, dtype="bfloat16", **given):
    """The text for CUDA of attention and its gradients: of query, key, value and, where there is one, the bias."""
    query = jax.ShapeDtypeStruct((ROWS, queries, HEADS, size), dtype)
    key = jax.ShapeDtypeStruct((ROWS, keys, groups, size), dtype)
    bias, mask = given.pop("bias", None), given.pop("mask", None)

    def of(query, key, value, bias, mask):
        out = attention(query, key, value, bias=bias, mask=mask, implementation=implementation, **given)
        return out.astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(of, range(3 if bias is None else 4), allow_int=True)).trace(query, key, key, bias, mask)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def calls(text: str) -> list[str]:
    return re.findall(r"@__cudnn\$(\w+)\(", text)


def relative(places=None) -> RelativeBias:
    return RelativeBias(jnp.zeros((32, HEADS)), bidirectional=True, places=places)


def segments(causal=False, queries=LENGTH, keys=LENGTH) -> Segments:
    return Segments(jnp.ones((ROWS, queries), jnp.int32), jnp.ones((ROWS, keys), jnp.int32), causal=causal)


LEGAL = {
    "plain": {},
    "T5's bias": {"bias": relative(), "scale": 1.0},
    "a packed encoder": {"bias": relative(), "mask": segments(), "scale": 1.0},
    "a packed decoder": {"bias": relative(), "mask": segments(causal=True), "scale": 1.0},
    "T5-PEGASUS's cross-attention": {
        "bias": relative(jnp.zeros((ROWS, LENGTH), jnp.int32)), "mask": segments(keys=256), "keys": 256,
    },
    "a dense bias of all rows": {"bias": jnp.zeros((1, HEADS, LENGTH, LENGTH))},
    "a dense bias of each row": {"bias": jnp.zeros((ROWS, HEADS, LENGTH, LENGTH))},
    "a bias of keys": {"bias": jnp.zeros((1, HEADS, 1, LENGTH))},
    "a mask of keys": {"mask": jnp.ones((ROWS, 1, 1, LENGTH), bool)},
    "segments alone": {"mask": segments()},
    "shared keys": {"bias": relative(), "groups": 2},
    "heads of 128": {"bias": relative(), "size": 128},
    "heads of 8": {"bias": relative(), "size": 8},
    "float16": {"bias": relative(), "dtype": "float16"},
    "even lengths": {"bias": relative(), "queries": 126, "keys": 66},
}  # fmt: skip


@pytest.mark.parametrize("case", LEGAL)
def test_what_is_legal_is_lowered_to_cudnn_forwards_and_backwards(case):
    given = LEGAL[case]
    softmax = "fmhaScaleBiasSoftmax" if {"bias", "mask"} & {*given} else "fmhaSoftmax"
    text = lowered(**given)
    assert calls(text) == [softmax, f"{softmax}Backward"]
    assert "stablehlo.exponential" not in text


def test_a_bias_and_its_gradient_pass_through_the_kernel():
    """Both in the type of the others, of all heads: what is learned of T5's table comes from there."""
    shape = f"tensor<1x{HEADS}x{LENGTH}x{LENGTH}xbf16>"
    forward, backward = (
        line for line in lowered(bias=relative(), scale=1.0).splitlines() if "custom_call @__cudnn" in line
    )
    taken, made = backward.rpartition(": (")[2].split(" -> ")
    assert shape in forward and shape in taken and shape in made


def test_the_scale_is_the_kernels():
    assert "fmha_scale\\22: 1.0" in (text := lowered(bias=relative(), scale=1.0)), text[:3000]
    assert "fmha_scale\\22: 0.125" in lowered(bias=relative())


REFUSED = {
    "float32": ({"dtype": "float32"}, "computes in bfloat16 or float16, not float32 (--dtype bfloat16); use xla"),
    "heads of 136": ({"size": 136}, "needs a head size that is a multiple of 8 up to 128, not 136"),
    "heads of 60": ({"size": 60}, "needs a head size that is a multiple of 8 up to 128, not 60"),
    "odd queries": ({"queries": 127, "bias": relative()}, "needs even lengths, not 127 queries and 128 keys"),
    "odd keys": ({"keys": 65}, "needs even lengths, not 128 queries and 65 keys"),
    "dropped": ({"dropout_rate": 0.1, "dropout_key": jax.random.key(0)}, "has no dropout of its weights"),
}  # fmt: skip


def test_all_that_it_lacks_is_told_at_once():
    given = {"dtype": "float32", "size": 60, "keys": 65, "dropout_rate": 0.1, "dropout_key": jax.random.key(0)}
    with pytest.raises(ValueError) as error:
        lowered(**given)
    assert str(error.value) == (
        "attention by cudnn computes in bfloat16 or float16, not float32 (--dtype bfloat16), "
        "has no dropout of its weights (--dropout 0), "
        "needs a head size that is a multiple of 8 up to 128, not 60 (another --preset), "
        "needs even lengths, not 128 queries and 65 keys (--row-source and --row-target, or --length); use xla"
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_is_refused_with_the_reason_and_is_xlas(case):
    given, expected = REFUSED[case]
    with pytest.raises(ValueError) as error:
        lowered(**given)
    assert expected in str(error.value)
    assert calls(lowered("auto", **given)) == []


def test_what_is_refused_jax_would_refuse_too():
    """But for dropout, which it is not asked for."""
    for given, _ in (REFUSED[case] for case in REFUSED if case != "dropped"):
        of = {"queries": LENGTH, "keys": LENGTH, "size": 64, "dtype": "bfloat16"} | given
        query, key = (jnp.zeros((ROWS, of[side], HEADS, of["size"]), of["dtype"]) for side in ("queries", "keys"))

        def run(query, key):
            return jax.nn.dot_product_attention(query, key, key, implementation="cudnn").astype(jnp.float32).sum()

        with pytest.raises(NotImplementedError):
            jax.jit(jax.grad(run)).trace(query, key)
