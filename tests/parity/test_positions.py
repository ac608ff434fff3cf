"""Positions of several coordinates against transformers: M-RoPE of Qwen's models, DINOv3's parts of an image; the same
angles to 1e-6 of the frequencies, and sines to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from transformers import DINOv3ViTConfig, Qwen2_5_VLTextConfig, Qwen2VLConfig, Qwen2VLTextConfig, Qwen3VLTextConfig
from transformers.models.dinov3_vit import modeling_dinov3_vit as dinov3
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel, Qwen2VLRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from rope.positions.angles import frequencies, grid
from rope.positions.normalised import augmented
from rope.positions.rotary import of_dimensions, rotate, rotation
from rope.positions.sections import section_frequencies, sequence_positions
from rope.vit.config import ViTConfig
from rope.vit.positions import KINDS, placed

HEADS, SIZE, BASE = 2, 128, 1_000_000.0
QWENS = {
    "Qwen2-VL": (Qwen2VLTextConfig, Qwen2VLRotaryEmbedding, (16, 24, 24), False),
    "Qwen2.5-VL": (Qwen2_5_VLTextConfig, Qwen2_5_VLRotaryEmbedding, (16, 24, 24), False),
    "Qwen3-VL": (Qwen3VLTextConfig, Qwen3VLTextRotaryEmbedding, (24, 20, 20), True),
}
PARTS = [5, (1, 4, 6), 3, (3, 4, 4), 2]  # text, an image, text, a video, text


@pytest.mark.parametrize("name", QWENS)
def test_sections_are_qwens(name):
    kind, embedding, sections, interleaved = QWENS[name]
    rope = {"rope_type": "default", "rope_theta": BASE, "mrope_section": [*sections]}
    about = kind(hidden_size=HEADS * SIZE, num_attention_heads=HEADS, head_dim=SIZE, rope_parameters=rope)
    theirs = embedding(about)
    np.testing.assert_allclose(frequencies(SIZE, f"{BASE}^-t"), theirs.inv_freq, rtol=1e-6)
    positions = sequence_positions(PARTS)
    cos, sin = theirs(torch.ones(1), torch.from_numpy(positions.T[:, None]))
    by = rotation(jnp.asarray(positions), section_frequencies(SIZE, sections, f"{BASE}^-t", interleaved=interleaved))
    for ours, wanted in zip(of_dimensions(by, SIZE, "half"), (cos, sin), strict=True):
        np.testing.assert_allclose(ours[:, 0], wanted[0], atol=1e-5)


def test_a_sequences_positions_are_qwens():
    """Of videos with as many frames as cells on a side, or fewer: after longer ones transformers has text begin among
    the frames, where the paper begins one after the largest coordinate (arXiv 2409.12191, section 2.1)."""
    small = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    about = Qwen2VLConfig(
        text_config=small | {"num_key_value_heads": 2, "vocab_size": 8, "rope_parameters": rope},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
    )
    with torch.device("meta"):  # no weights: positions have none
        model = Qwen2VLModel(about)
    merge = about.vision_config.spatial_merge_size
    kinds = np.concatenate(
        [np.full(part, 0) if isinstance(part, int) else np.full(np.prod(part), 1 + (part[0] > 1)) for part in PARTS]
    )
    images, videos = (
        torch.tensor(
            [[t, h * merge, w * merge] for t, h, w in (p for p in PARTS if isinstance(p, tuple)) if (t > 1) == many]
        )
        for many in (False, True)
    )
    ids = torch.zeros(1, len(kinds), dtype=torch.int64)
    wanted, _ = model.get_rope_index(ids, torch.from_numpy(kinds)[None], images, videos)
    np.testing.assert_array_equal(sequence_positions(PARTS), wanted[:, 0].T)


@pytest.mark.parametrize("shape", [(14, 14), (3, 5), (40, 9)])
def test_normalised_is_dinov3s(shape):
    about = DINOv3ViTConfig(hidden_size=HEADS * 24, num_attention_heads=HEADS, patch_size=4, image_size=32)
    theirs = dinov3.DINOv3ViTRopePositionEmbedding(about).eval()
    config = ViTConfig(width=HEADS * 24, heads=HEADS, patch=4, positions="normalised", theta=f"{about.rope_theta}^-t")
    places = placed(config, grid(*shape).astype(jnp.float32)[None], shape, None)
    wanted = dinov3.get_patches_center_coordinates(*shape, dtype=torch.float32, device="cpu")
    np.testing.assert_allclose(places[0], wanted, atol=1e-6)
    by = KINDS["normalised"].turns(config, None, places, shape)
    cos, sin = theirs(torch.zeros(1, 3, 4 * shape[0], 4 * shape[1]))
    for ours, wanted in zip(of_dimensions(by, 24, "half"), (cos, sin), strict=True):
        np.testing.assert_allclose(ours[0, :, 0], wanted, atol=1e-5)
    x = np.random.default_rng(1).standard_normal((1, len(wanted), HEADS, 24)).astype(np.float32)
    turned, _ = dinov3.apply_rotary_pos_emb(*[torch.from_numpy(x).transpose(1, 2)] * 2, cos, sin)
    np.testing.assert_allclose(rotate(jnp.asarray(x), by, "half"), turned.transpose(1, 2), atol=2e-5)


def test_training_stretches_coordinates_as_dinov3():
    """Draws of another generator, so the same law: by Kolmogorov and Smirnov, of 1,500 draws each."""
    settings = {"shift": 0.2, "jitter": 1.3, "rescale": 2.0}
    ends = np.array([[-1, -1], [1, 1]], np.float32)
    torch.manual_seed(0)
    theirs = [
        dinov3.augment_patches_center_coordinates(torch.from_numpy(ends), **settings).numpy() for _ in range(1500)
    ]
    ours = jax.vmap(lambda key: augmented(jnp.asarray(ends), key, **settings))(
        jax.random.split(jax.random.key(0), 1500)
    )
    wanted = _laws(np.stack(theirs))
    for name, drawn in _laws(np.asarray(ours)).items():
        assert ks_2samp(drawn, wanted[name]).pvalue > 0.01, name
    assert ks_2samp(_laws(1.1 * np.asarray(ours))["rows"], wanted["rows"]).pvalue < 1e-3  # the test sees a tenth


def _laws(ends: np.ndarray) -> dict[str, np.ndarray]:
    """Of [draws, 2, 2], both ends' coordinates: by what rows are stretched, by what columns in comparison, and by how
    much they are moved first."""
    stretch, middle = (ends[:, 1] - ends[:, 0]) / 2, (ends[:, 1] + ends[:, 0]) / 2
    return {"rows": stretch[:, 0], "beside": stretch[:, 1] / stretch[:, 0], "moved": (middle / stretch)[:, 1]}
