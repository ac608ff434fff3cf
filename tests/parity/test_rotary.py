"""Rotations, their extensions and grouped causal attention against transformers' Llama and RoFormer,
to 1e-5 in float32."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.roformer.modeling_roformer import (
    RoFormerSelfAttention,
    RoFormerSinusoidalPositionalEmbedding,
)

from rope.layers.attention import attention
from rope.layers.masks import Segments
from rope.layers.primitives import rms_norm
from rope.positions.angles import frequencies
from rope.positions.extension import (
    Extension,
    dynamic_ntk,
    extended_rotation,
    interpolated,
    slowed,
    yarn,
    yarn_magnitude,
)
from rope.positions.rotary import rotate, rotation

RANDOM = np.random.default_rng(5)


def draw(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def close(found, wanted, tolerance: float = 1e-5) -> None:
    """Equal to this part of the largest element."""
    found, wanted = np.asarray(found), np.asarray(wanted.detach())
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()


def scaled(kind: str, factor: float, trained: int) -> dict:
    """How LlamaConfig says it: max_position_embeddings is the trained length, or with YaRN and LongRoPE the longer
    one."""
    if kind in ("yarn", "longrope"):
        return {"longest": int(trained * factor), "factor": factor, "original_max_position_embeddings": trained}
    return {"longest": trained} | ({} if kind == "default" else {"factor": factor})


def config(size: int, longest: int = 64, **rope) -> LlamaConfig:
    rope = {"rope_type": "default", "rope_theta": 10_000.0} | rope
    return LlamaConfig(
        vocab_size=50,
        hidden_size=4 * size,
        head_dim=size,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=20,
        num_hidden_layers=2,
        max_position_embeddings=longest,
        rope_parameters=rope,
        attention_dropout=0.0,
    )


@pytest.mark.parametrize("size", [2, 8, 64])
def test_half_is_llamas(size):
    query, key = draw(2, 100, 4, size), draw(2, 100, 2, size)
    positions = np.stack([np.arange(100), 900 + 3 * np.arange(100)])
    cos, sin = LlamaRotaryEmbedding(config(size))(torch.ones(1), torch.from_numpy(positions))
    wanted = apply_rotary_pos_emb(*(torch.from_numpy(x).transpose(1, 2) for x in (query, key)), cos, sin)
    by = rotation(positions, frequencies(size))
    for x, y in zip((query, key), wanted, strict=True):
        # Angles of some thousands differ by rounding.
        close(rotate(jnp.asarray(x), by, "half"), y.transpose(1, 2), 1e-4)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_interleaved_is_roformers(size):
    query, key = draw(2, 100, 3, size), draw(2, 100, 3, size)
    embedding = RoFormerSinusoidalPositionalEmbedding(100, size)
    sinusoids = embedding.create_weight()[None, None]
    wanted = RoFormerSelfAttention.apply_rotary_position_embeddings(
        sinusoids, *(torch.from_numpy(x).transpose(1, 2) for x in (query, key))
    )
    by = rotation(np.arange(100), frequencies(size))
    for x, y in zip((query, key), wanted, strict=True):
        close(rotate(jnp.asarray(x), by), y.transpose(1, 2), 2e-5)


CASES = list(itertools.product([4, 64, 96], [100.0, 10_000.0, 500_000.0], [1.0, 2.5, 8.0], [64, 512, 4096]))


def theirs(kind, size, base, factor, trained, length) -> tuple[torch.Tensor, float]:
    about = config(size, rope_type=kind, rope_theta=base, **scaled(kind, factor, trained))
    return ROPE_INIT_FUNCTIONS[kind](about, torch.device("cpu"), length)


def ours(kind, size, base, factor, trained, length) -> tuple[jax.Array, float]:
    match kind:
        case "linear":
            return interpolated(frequencies(size, f"{base}^-t"), factor), 1
        case "dynamic":
            return dynamic_ntk(size, factor, length, trained, base), 1
    return yarn(size, factor, trained, base), yarn_magnitude(factor)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_frequencies(kind):
    for size, base, factor, trained in CASES:
        for length in (trained // 2, trained, trained + 1, 3 * trained) if kind == "dynamic" else (trained,):
            found, wanted = (f(kind, size, base, factor, trained, length) for f in (ours, theirs))
            where = f"{size=} {base=} {factor=} {trained=} {length=}"
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, err_msg=where)
            np.testing.assert_allclose(found[1], wanted[1], rtol=1e-12, err_msg=where)


def drawn_factors(size: int) -> dict[str, tuple[float, ...]]:
    """One for each pair: what a search finds, and nothing of any formula."""
    random = np.random.default_rng(size)
    return {name: tuple(random.uniform(1, 40, size // 2).tolist()) for name in ("long_factors", "short_factors")}


def theirs_by_factors(e: Extension) -> dict[str, list[float]]:
    return {"long_factor": [*e.long_factors], "short_factor": [*e.short_factors]}


def test_frequencies_by_longropes_factors():
    for size, base, factor, trained in CASES:
        e = Extension(method="longrope", factor=factor, trained=trained, **drawn_factors(size))
        scaling = scaled("longrope", factor, trained) | theirs_by_factors(e)
        about = config(size, rope_type="longrope", rope_theta=base, **scaling)
        for length in (trained // 2, trained, trained + 1, 3 * trained):
            wanted = ROPE_INIT_FUNCTIONS["longrope"](about, torch.device("cpu"), length)
            found = slowed(e, size, length, f"{base}^-t")
            of_texts = slowed(e, size, jnp.array([[length, 1]]), f"{base}^-t")[0]
            where = f"{size=} {base=} {factor=} {trained=} {length=}"
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, err_msg=where)
            np.testing.assert_allclose(of_texts[0, 0], wanted[0], rtol=1e-5, err_msg=where)
            np.testing.assert_allclose(found[1], wanted[1], rtol=1e-12, err_msg=where)


def test_dynamic_yarn_is_yarn_of_the_texts_own_length():
    for size, base, _, trained in CASES:
        e = Extension(method="dynamic-yarn", trained=trained)
        lengths = [trained // 2, trained, trained + 1, 3 * trained, 17 * trained]
        of_texts = slowed(e, size, jnp.array(lengths), f"{base}^-t")
        for i, length in enumerate(lengths):
            wanted = theirs("yarn", size, base, max(length / trained, 1.0), trained, length)
            found = slowed(e, size, length, f"{base}^-t")
            where = f"{size=} {base=} {trained=} {length=}"
            for ours, rtol in ((found, 1e-12), ((of_texts[0][i], of_texts[1][i]), 1e-6)):
                np.testing.assert_allclose(ours[0], wanted[0], rtol=1e-5, err_msg=where)
                np.testing.assert_allclose(ours[1], wanted[1], rtol=rtol, err_msg=where)


SCALINGS = {
    "default": Extension(trained=16),
    "linear": Extension(method="linear", factor=4, trained=16),
    "dynamic": Extension(method="dynamic", factor=4, trained=16),
    "yarn": Extension(method="yarn", factor=4, trained=16),
    "longrope": Extension(method="longrope", factor=4, trained=16, **drawn_factors(8)),
}


def llama(kind: str) -> tuple[LlamaConfig, Extension]:
    e = SCALINGS[kind]
    factors = theirs_by_factors(e) if kind == "longrope" else {}
    about = config(8, rope_type=kind, **scaled(kind, e.factor, e.trained), **factors)
    about._attn_implementation = "eager"
    return about, e


def attend(weights, x: np.ndarray, e: Extension, size: int = 8) -> jax.Array:
    """Causal attention of 4 heads of queries and 2 of keys over rows [B, T, D], with torch's kernels."""
    b, t, _ = x.shape
    query, key, value = ((x @ weights[f"{n}_proj.weight"].numpy().T).reshape(b, t, -1, size) for n in ("q", "k", "v"))
    ones = jnp.ones((b, t), jnp.int32)
    by = extended_rotation(e, jnp.arange(t), size, t)
    mixed = attention(query, key, value, rotation=by, layout="half", mask=Segments(ones, ones, causal=True))
    return mixed.reshape(b, t, -1) @ weights["o_proj.weight"].numpy().T


@pytest.mark.parametrize("kind", SCALINGS)
def test_an_attention_layer_of_llama(kind):
    torch.manual_seed(3)
    about, e = llama(kind)
    layer, x = LlamaAttention(about, layer_idx=0).eval(), draw(2, 50, 32)
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn_like(parameter) / 3)
    angles = LlamaRotaryEmbedding(about)(torch.from_numpy(x), torch.arange(50)[None])
    causal = torch.full((50, 50), -torch.inf).triu(1)[None, None]
    wanted, _ = layer(torch.from_numpy(x), position_embeddings=angles, attention_mask=causal)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    close(attend(weights, x, e), wanted)
    if kind != "default":  # and the extension matters
        other = np.asarray(attend(weights, x, Extension()))
        assert np.abs(other - wanted.detach().numpy()).max() > 0.01


def test_llama_with_yarn():
    """Two whole layers: norms, attention, SwiGLU."""
    torch.manual_seed(4)
    about, e = llama("yarn")
    model = LlamaModel(about).eval()
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn_like(parameter) / 3)
    ids = RANDOM.integers(0, 50, (2, 50))
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids)).last_hidden_state
    p = {name: x.detach() for name, x in model.named_parameters()}

    def norm(x, name):
        return rms_norm(x, jnp.asarray(p[f"{name}.weight"]), about.rms_norm_eps)

    x = jnp.asarray(p["embed_tokens.weight"])[ids]
    for i in range(2):
        layer = f"layers.{i}"
        weights = {n.removeprefix(f"{layer}.self_attn."): w for n, w in p.items() if "self_attn" in n and layer in n}
        x = x + attend(weights, norm(x, f"{layer}.input_layernorm"), e)
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate, up, down = (p[f"{layer}.mlp.{n}_proj.weight"].numpy().T for n in ("gate", "up", "down"))
        x = x + (jax.nn.silu(h @ gate) * (h @ up)) @ down
    close(norm(x, "norm"), wanted)
