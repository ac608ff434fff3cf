"""The transplant against its rules written out slowly; what is refused; the script."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pegasus_zh.t5.huggingface import huggingface_tensors, write_folder
from pegasus_zh.t5.load import load
from pegasus_zh.t5.transplant import TransplantConfig, transplant
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from scripts.transplant import main
from tests.pegasus_zh.t5.random_model import TINY, random_model
from training.files.errors import DataError

LINES = (Path(__file__).parents[2] / "goldens" / "lines.txt").read_text(encoding="utf-8").split("\n")
MT5 = SentencePieceTokenizer(train_sentencepiece(LINES, 1200))
CONFIG = replace(TINY, vocabulary=1216)
MODEL = random_model(CONFIG, seed=2)


@pytest.fixture
def mt5(tmp_path) -> Path:
    write_folder(tmp_path / "mt5", MODEL, CONFIG, MT5)
    return tmp_path / "mt5"


def vocabulary() -> list[str]:
    """Tokens of every kind, in an order in which those that mT5 lacks are not last."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=MT5._model)
    pieces = [sp.id_to_piece(i) for i in range(300, sp.get_piece_size(), 7)]
    begins = [x[1:] for x in pieces if x.startswith("▁") and len(x) > 1]
    insides = [x for x in pieces if "▁" not in x]
    tokens = ["鱻鱻", "##", "##" + insides[0], insides[0], *insides, "今天天气不错", *begins, "##鱻", "\u3000", "a的b"]
    tokens += ["##" + x for x in begins[:5]] + [x + "们们" for x in insides[:5]]
    return SPECIALS + list(dict.fromkeys(tokens))


def slowly(old_vocabulary: list[str], embedding: np.ndarray) -> tuple[list[str], np.ndarray, int]:
    """The published procedure, line by line: (tokens by new id, rows, how many of them are means)."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=MT5._model)
    keep, new, n = [], {}, 0
    for token in old_vocabulary:
        if n < 106:
            new[token] = n
            n += 1
            continue
        if token.startswith("##"):
            i = sp.piece_to_id(token[2:])
            if i == 2:
                i = sp.piece_to_id("▁" + token)
        else:
            i = sp.piece_to_id("▁" + token)
            if i == 2:
                i = sp.piece_to_id(token)
        if i != 2:
            keep.append(i)
            new[token] = len(new)
    keep = [2] * 106 + keep
    inverse = {}
    for j, i in enumerate(keep):
        inverse[i] = j
    compounds = []
    for token in old_vocabulary:
        if token not in new:
            new[token] = len(new)
            compounds.append([inverse.get(i, 0) for i in sp.encode(token)])
    kept = np.stack([embedding[i] for i in keep])
    means = [sum(kept[j].astype(np.float64) for j in c) / len(c) if c else kept[0] for c in compounds]
    return sorted(new, key=new.get), np.concatenate([kept, np.stack(means)]), len(means)


def test_rows_and_order_are_those_of_the_published_procedure(mt5, tmp_path, said):
    old = vocabulary()
    PegasusTokenizer(old).save(tmp_path / "vocabulary")
    config = TransplantConfig(model=str(mt5), folder=str(tmp_path / "new"), tokenizer=str(tmp_path / "vocabulary"))
    loaded = load(transplant(config))
    tokens, embedding, means = slowly(old, MODEL.embedding)
    assert loaded.tokenizer.vocabulary == tokens != old
    np.testing.assert_allclose(loaded.model.embedding[: len(tokens)], embedding, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.model.head.T[: len(tokens)], slowly(old, MODEL.head.T)[1], rtol=1e-5, atol=1e-6)
    # Padding to a multiple of 16 is <unk> too; all else is mT5's.
    assert len(loaded.model.embedding) % 16 == 0 < len(loaded.model.embedding) - len(tokens)
    assert (loaded.model.embedding[len(tokens) :] == np.asarray(MODEL.embedding[2])).all()
    assert loaded.config == replace(CONFIG, vocabulary=loaded.config.vocabulary)
    ours, theirs = dict(huggingface_tensors(loaded.model)), dict(huggingface_tensors(MODEL))
    for name in theirs.keys() - {"shared.weight", "lm_head.weight"}:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    # Every kind of row was met, and is counted.
    kept = len(tokens) - 106 - means
    assert kept > 20 and means > 8
    assert f"106 special ones from <unk>, {kept} from mT5's own pieces, {means} means of pieces (" in said[-1]
    assert len(said) == 2


def test_a_vocabulary_from_documents(mt5, tmp_path, monkeypatch, shown):
    (tmp_path / "text.txt").write_text("\n\n".join(LINES), encoding="utf-8")
    folders = ["--model", str(mt5), "--folder", str(tmp_path / "new")]
    arguments = [*folders, "--data", str(tmp_path / "text.txt"), "--vocabulary", "300", "--dtype", "bfloat16"]
    monkeypatch.setattr(sys, "argv", ["transplant", *arguments])
    main()
    assert "106 special ones from <unk>" in shown.readouterr().out
    loaded = load(tmp_path / "new")
    assert loaded.tokenizer.vocab_size == 300 and loaded.config.vocabulary == 304
    with pytest.raises(DataError, match="exists already; add --overwrite"):
        main()


def test_what_is_refused_leaves_nothing(mt5, tmp_path):
    PegasusTokenizer(SPECIALS + ["天"]).save(tmp_path / "vocabulary")
    PegasusTokenizer(SPECIALS[:104]).save(tmp_path / "short")
    write_folder(tmp_path / "pegasus", random_model(TINY), TINY, PegasusTokenizer(SPECIALS))
    ok, out = {"model": str(mt5), "tokenizer": str(tmp_path / "vocabulary")}, str(tmp_path / "out")
    cases = [
        ({"tokenizer": ""}, "--tokenizer, or documents to make one from by --data"),
        ({"data": ("x.txt",)}, "--tokenizer, or documents to make one from by --data"),
        ({"tokenizer": str(mt5)}, "not a vocab.txt in Chinese BERT's layout"),
        ({"tokenizer": str(tmp_path / "short")}, "with its 106 first ids"),
        ({"tokenizer": str(tmp_path / "nothing")}, "no such file"),
        ({"tokenizer": "", "data": (str(tmp_path / "nothing.txt"),)}, "nothing.txt"),
        ({"model": str(tmp_path / "pegasus")}, "the embedding has 64 rows and the tokenizer 106 tokens"),
    ]
    for change, message in cases:
        with pytest.raises(DataError, match=message):
            transplant(TransplantConfig(folder=out, **(ok | change)))
    big = replace(TINY, vocabulary=112)
    write_folder(tmp_path / "pegasus", random_model(big), big, PegasusTokenizer(SPECIALS), overwrite=True)
    with pytest.raises(DataError, match="has a vocab.txt already"):
        transplant(TransplantConfig(folder=out, **(ok | {"model": str(tmp_path / "pegasus")})))
    assert not Path(out).exists()
