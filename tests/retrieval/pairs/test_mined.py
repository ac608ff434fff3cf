"""Mined pairs against all cosines compared in plain loops; the command against the function."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from retrieval import Embedder, fit_whitening
from retrieval.pairs.mined import Bounds, mine_pairs, neighbour_pairs
from retrieval.pairs.model_commands import MineConfig, mine
from retrieval.pairs.same import said
from retrieval.pairs.tally import Tally, distinct
from retrieval.search.index import make_index
from retrieval.vectors.encoding import Encoding
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from training.files.errors import DataError
from training.mesh import MeshConfig
from training.telling import show

RANDOM = np.random.default_rng(0)
TEXTS = ["".join(RANDOM.choice(list("今天气很好我们去公园散步呢"), 5)) for _ in range(90)]
VECTORS = RANDOM.normal(size=(90, 4)).astype(np.float32)
BOUNDS = Bounds(least=0.5, most=0.97, copies=0.6, neighbours=4, pairs_a_text=2)


def plainly(texts: list[str], vectors: np.ndarray, bounds: Bounds) -> list[tuple[str, str]]:
    """The pairs, by what the words say."""
    vectors = np.float64(vectors) / np.linalg.norm(np.float64(vectors), axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    near = [set(np.argsort(-row)[: bounds.neighbours].tolist()) for row in cosines]
    found = []
    for i in range(len(texts)):
        for j in range(i + 1, len(texts)):
            times = (j in near[i]) + (i in near[j])
            alike = Levenshtein.normalized_similarity(said(texts[i]), said(texts[j]))
            if times and bounds.least <= cosines[i, j] <= bounds.most and alike <= bounds.copies:
                found.append((-times, -cosines[i, j], i, j))
    kept, count = [], [0] * len(texts)
    for _, _, i, j in sorted(found):
        if max(count[i], count[j]) < bounds.pairs_a_text:
            count[i], count[j] = count[i] + 1, count[j] + 1
            kept.append((texts[i], texts[j]))
    return kept


@pytest.mark.parametrize(
    "changes", [{}, {"pairs_a_text": 1}, {"neighbours": 1}, {"least": 0.9}, {"copies": 0.1}, {"neighbours": 200}]
)
def test_pairs_are_the_plain_ones(changes):
    assert len({*map(said, TEXTS)}) == len(TEXTS)
    bounds = replace(BOUNDS, **changes)
    found = mine_pairs(TEXTS, VECTORS, **vars(bounds))
    assert [pair[:2] for pair in found] == plainly(TEXTS, VECTORS, bounds) and len(found) > 10
    assert all(bounds.least <= pair.cosine <= bounds.most for pair in found)


def test_scale_pieces_and_the_kind_of_index_change_nothing(monkeypatch):
    found = mine_pairs(TEXTS, VECTORS, **vars(BOUNDS))
    assert [x[:2] for x in mine_pairs(TEXTS, 7 * VECTORS, **vars(BOUNDS))] == [x[:2] for x in found]
    monkeypatch.setattr("retrieval.pairs.mined.PIECE", 16)
    told = []
    again = neighbour_pairs(TEXTS, VECTORS, BOUNDS, Tally(), make_index("flat", 4), told.append)
    assert [x[:2] for x in again] == [x[:2] for x in found] and sum(told) == len(TEXTS) and len(told) == 6


def test_copies_and_texts_of_one_token_are_left_out_before():
    tally = Tally()
    texts = ["今天天气", "好", "今天，天气！", "公园散步", "OK", "今天 天气", "公园"]
    assert distinct(texts, tally) == [0, 3, 6]
    assert tally.dropped == {"texts of one token": 2, "texts there already": 2}
    vectors = np.eye(7, 3, dtype=np.float32) + 1
    assert {x[:2] for x in mine_pairs(texts, vectors, least=0, copies=1)} <= {
        ("今天天气", "公园散步"), ("今天天气", "公园"), ("公园散步", "公园"),
    }  # fmt: skip
    assert mine_pairs(["今天天气", "好"], vectors[:2]) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "m")


def test_few_texts_are_whitened_in_the_directions_that_there_are(model, tmp_path):
    assert mine(config(model, tmp_path, ["今天天气", "我们散步", "公园很好", "你呢今天"], whiten=24)) > 0


def config(model, tmp_path, texts: list[str] = TEXTS, **settings) -> MineConfig:
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n", "utf-8")
    given = {"out": str(tmp_path / "o.tsv"), "bounds": replace(BOUNDS, least=-1, most=1), "mesh": MeshConfig()}
    encoding = Encoding(max_length=20)
    return MineConfig(model=str(model), data=(str(tmp_path / "t.txt"),), encoding=encoding, **given | settings)


def test_the_command_mines_what_the_function_does(model, tmp_path, capsys):
    show()
    assert {*"".join(TEXTS)} <= {*CHARACTERS}
    embedder, bounds = Embedder(model, max_length=20, mesh=MeshConfig()), replace(BOUNDS, least=-1, most=1)
    for whiten in (0, 3):
        vectors = embedder.encode(TEXTS)
        vectors = fit_whitening(vectors, whiten)(vectors) if whiten else vectors
        wanted = {x[:2] for x in mine_pairs(TEXTS, vectors, **vars(bounds))}
        count = mine(config(model, tmp_path, whiten=whiten))
        made = [tuple(line.split("\t")) for line in (tmp_path / "o.tsv").read_text("utf-8").splitlines()]
        # Cosines of the two differ by roundings, and so may the last of equals.
        assert len(made) == count and len(wanted & {*made}) > 0.95 * count > 20
    told = capsys.readouterr().out
    assert "t.txt: 90 texts, " in told and "the nearest of a text lies at a cosine of 0." in told
    mine(config(model, tmp_path, out=str(tmp_path / "o.jsonl")))
    first = json.loads((tmp_path / "o.jsonl").read_text("utf-8").splitlines()[0])
    assert [*first] == ["text", "synonyms"] and len(first["synonyms"]) == 1


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(least=0.99999, most=1), "3 pairs of a cosine below 0.99999, 1 texts of one token"),
        (Bounds(least=-1, most=-0.9999), "3 pairs of a cosine above -0.9999, 1 texts of one token"),
        (Bounds(least=-1, most=1, copies=0.1), "3 pairs that are spelt alike, 1 texts of one token"),
    ],
)
def test_no_pair_says_which_bound_left_how_many_out(model, tmp_path, bounds, reason):
    texts = ["今天天气", "今天气", "天天气", "好"]
    with pytest.raises(DataError, match=rf"t.txt: 4 texts, 3 pairs of .*: no pairs; left out: {reason}$") as refused:
        mine(config(model, tmp_path, texts, bounds=bounds))
    assert "\n" not in str(refused.value) and not (tmp_path / "o.tsv").exists()


def test_one_text_has_no_neighbour(model, tmp_path):
    with pytest.raises(DataError, match="t.txt: 2 texts: no pairs; left out: 1 texts of one token"):
        mine(config(model, tmp_path, ["今天", "好"]))


def test_what_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="least is 0.9 and most 0.6: most is from least to 1"):
        Bounds(least=0.9, most=0.6)
    with pytest.raises(ValueError, match="copies is 1.5: it must be from 0 to 1"):
        Bounds(copies=1.5)
    with pytest.raises(ValueError, match="neighbours is 0: it must be 1 or more"):
        Bounds(neighbours=0)
    with pytest.raises(ValueError, match=r"90 texts and vectors of shape \(89, 4\)"):
        mine_pairs(TEXTS, VECTORS[:-1])
    with pytest.raises(ValueError, match="is one text: give a list"):
        mine_pairs("今天", VECTORS[:2])
    with pytest.raises(DataError, match="vectors: row 1 has NaN"):
        mine_pairs(TEXTS, np.where(np.arange(90)[:, None] == 0, np.nan, VECTORS))
    with pytest.raises(DataError, match="--whiten 99: the model's vectors have 24 dimensions"):
        mine(config(model, tmp_path, whiten=99))
    with pytest.raises(DataError, match="no text; remove the line"):
        mine(config(model, tmp_path, ["今天", "", "公园"]))
    with pytest.raises(DataError, match="t.txt: the input|is written as"):
        mine(config(model, tmp_path, out=str(tmp_path / "t.txt")))
