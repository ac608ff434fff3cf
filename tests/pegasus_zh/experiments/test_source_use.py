"""The measures of source use: exact on a model whose use is known, and of texts by hand."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pegasus_zh.experiments.source_use import batches_of, gains, part_from_source, source_gain
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.objective import loss
from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from training.mesh import MeshConfig, make_mesh

CONFIG = mt5.MT5Config(vocabulary=128, width=16, feed_forward=16, heads=2, head_size=8, layers=1, dropout=0)
TOKENIZER = PegasusTokenizer([*SPECIALS, *"天地玄黄宇宙洪荒日月盈昃辰宿列张寒来"])


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(0)
    draw = lambda n: random.integers(106, 124, n).astype(np.uint16)  # noqa: E731
    return [(draw(6 + n % 3), draw(3 + n % 4)) for n in range(70)]


def test_batches_are_full_and_take_every_pair_that_fills_one(pairs, mesh):
    batches = batches_of(pairs, TOKENIZER, (8, 8), mesh)
    assert [len(batch["source"]) for batch in batches] == [32, 32]
    assert (np.concatenate([batch["source_segments"] for batch in batches])[:, 0] == 1).all()
    for number in (0, 40):
        row = batches[number // 32]["source"][number % 32]
        assert (row[: len(pairs[number][0])] == pairs[number][0]).all()
    few = batches_of(pairs[:3], TOKENIZER, (8, 8), mesh)
    assert [len(batch["source"]) for batch in few] == [3]
    eight = make_mesh(MeshConfig())
    assert [len(batch["source"]) for batch in batches_of(pairs[:3], TOKENIZER, (8, 8), eight)] == [8]


def test_the_gain_is_the_loss_after_other_sources_less_that_after_their_own(pairs, mesh):
    model = mt5.init(CONFIG, jax.random.key(0))
    batches = batches_of(pairs[:36], TOKENIZER, (8, 8), mesh)
    loss_of = jax.jit(lambda model, rows: loss(model, rows, None, config=CONFIG)["loss"][0])
    total = tokens = 0.0
    for batch in batches:
        for row in range(len(batch["source"])):
            own = {name: x[row : row + 1] for name, x in batch.items()}
            other = {name: batch[name][row - 1][None] for name in ("source", "source_segments")}
            total += float(loss_of(model, own | other)) - float(loss_of(model, own))
        tokens += int((batch["target_segments"] > 0).sum())
    with jax.set_mesh(mesh):
        found = source_gain(model, CONFIG, batches)
        told = gains(CONFIG, {"one": batches, "two": batches[:1]})(model, 7)
    assert abs(found) > 1e-3 and found == pytest.approx(total / tokens, abs=1e-4)
    assert told.keys() == {"gain_one", "gain_two"} and told["gain_one"] == found


def test_a_model_that_cannot_see_its_source_gains_nothing(pairs, mesh):
    model = mt5.init(CONFIG, jax.random.key(0))
    block = model.decoder.blocks
    cross = replace(block.cross_attention, output=0 * block.cross_attention.output)
    blind = replace(model, decoder=replace(model.decoder, blocks=replace(block, cross_attention=cross)))
    with jax.set_mesh(mesh):
        assert source_gain(blind, CONFIG, batches_of(pairs, TOKENIZER, (8, 8), mesh)) == 0


def test_what_is_written_of_the_source():
    sources = ["天地玄黄", "天地玄黄", "天 地玄\n黄", "天", "天地"]
    written = ["天地黄", "黄玄地天", "天 地玄", "", "天"]
    assert part_from_source(written, sources).tolist() == [0.5, 0, 1, 0, 0]
    assert part_from_source(written, sources, n=1).tolist() == [1, 1, 1, 0, 1]
