"""What is shown of a pretrained model: the documents of packed rows, and which pseudo-summary it finds."""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from pegasus_zh import samples
from pegasus_zh.rows.packing import SOURCE, TARGET, decode_rows, encode_row
from pegasus_zh.samples import finding, pairs_of, show_samples
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.objective import loss
from pegasus_zh.writing import Writing, generate
from rope.decoding.search import Search
from tests.pegasus_zh.t5.random_model import START, TINY, on_mesh, random_model, random_pairs
from tests.pegasus_zh.test_writing import CONFIG, MODEL, TOKENIZER
from training.mesh import MeshConfig, make_mesh

PAIRS = random_pairs(11, TINY, seed=2)
PACKED = [PAIRS[:2], PAIRS[2:3], PAIRS[3:6], PAIRS[6:9], PAIRS[9:]]


class Rows:
    """Packed rows in memory, as PackedRows reads them."""

    def __init__(self, packed):
        self._records = [encode_row(row, "<u2") for row in packed]

    def __len__(self):
        return len(self._records)

    def batch(self, indices):
        records = [self._records[i] for i in indices]
        return decode_rows(records, "<u2", {SOURCE: 64, TARGET: 32}, pad_id=0, start_id=START)


def test_documents_of_packed_rows_one_by_one():
    found = list(pairs_of(Rows(PACKED)))
    assert len(found) == len(PAIRS)
    for pair, (source, target) in zip(found, PAIRS, strict=True):
        np.testing.assert_array_equal(pair["source"], source)
        np.testing.assert_array_equal(pair["target"], target)
        np.testing.assert_array_equal(pair["target_inputs"], [START, *target[:-1]])


@jax.jit
def log_p(model, source, inputs):
    """Of every token at every place of a row [1, T]."""
    segments, here = ((x > 0).astype(int) for x in (source, inputs))
    encoded = mt5.encode(model, source, segments, TINY)
    return jax.nn.log_softmax(mt5.logits(model, mt5.decode(model, inputs, here, encoded, segments, TINY), TINY))


def plainly(model, pairs) -> float:
    """The share, a document and a target at a time."""
    hits = []
    for i, (source, _) in enumerate(pairs):
        scores = []
        for k in range(8):
            target = pairs[(i + k) % len(pairs)][1]
            rows = (np.pad(x, (0, 24 - len(x)))[None].astype(int) for x in (source, [START, *target[:-1]]))
            scores.append(float(log_p(model, *rows)[0, np.arange(len(target)), target].mean()))
        hits.append(int(np.argmax(scores)) == 0)
    return float(np.mean(hits))


@pytest.mark.parametrize("most", [1, 1 << 25])  # logits at once: a row at a time, all rows
def test_the_share_that_is_found(monkeypatch, most):
    monkeypatch.setattr(samples, "_SCORES", most)
    model = random_model(TINY, seed=3)
    assert finding(TINY, Rows(PACKED))(model, 0) == {"found_among_8": plainly(model, PAIRS)}


def test_a_model_that_knows_the_documents_finds_them():
    """One that was trained on these very pairs."""
    rows = Rows([[pair] for pair in PAIRS[:9]])
    model, tx, batch = random_model(TINY, seed=3), optax.adam(1e-2), rows.batch(range(9))
    share = finding(TINY, rows)
    before, state = share(model, 0)["found_among_8"], tx.init(model)

    @jax.jit
    def step(model, state):
        updates, state = tx.update(jax.grad(lambda m: loss(m, batch, None, config=TINY)["loss"][0])(model), state)
        return optax.apply_updates(model, updates), state

    for _ in range(200):
        model, state = step(model, state)
    assert before < 0.4 and share(model, 200)["found_among_8"] > 0.8


def test_a_mesh_finds_the_same():
    model, pairs = random_model(TINY, seed=5), Rows(PACKED)
    alone = finding(TINY, pairs)(model, 0)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])):
        assert finding(TINY, pairs)(on_mesh(model, TINY), 0) == alone


def test_of_few_documents_nothing_is_said():
    assert finding(TINY, Rows(PACKED[:3]))(random_model(TINY), 0) == {}


def test_samples_are_written_without_repetitions(shown, tmp_path):
    pairs = random_pairs(5, replace(TINY, vocabulary=160), seed=2)
    sources, decoder = [source.tolist() for source, _ in pairs[:4]], MT5Decoder(CONFIG)
    longest = Writing(max_source=max(map(len, sources)), max_target=128, batch_size=4)
    greedy, wanted = (
        list(generate(MODEL, decoder, TOKENIZER, sources, replace(longest, search=Search(no_repeat_ngram_size=n))))
        for n in (0, 3)
    )
    show_samples(MODEL, CONFIG, TOKENIZER, Rows([pairs[:2], pairs[2:]]), 4, tmp_path / "samples.txt")
    text = (tmp_path / "samples.txt").read_text("utf-8")
    assert text.strip() in shown.readouterr().out
    assert [line[11:] for line in text.splitlines() if line.startswith("written")] == wanted != greedy
