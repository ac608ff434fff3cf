"""Words as ids: every cut that the vocabulary allows, what cannot be written, sentinels."""

import io
import json

import pytest
import sentencepiece

from pegasus_zh.text.side_files import Settings
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece
from pegasus_zh.text.words import opening, sentinels, spellings
from training.files.errors import DataError

PEGASUS = PegasusTokenizer(
    [*SPECIALS, "我", "们", "##们", "我们", "我们的", "信用", "卡", "extra0", "extra1", "abc", "的"]
)


@pytest.fixture(scope="module")
def pieces():
    """A small sentencepiece model with sentinels, as mT5's has them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["我们的信用卡", "信用 卡", "我们 信用", "用卡 我"] * 20),
        model_writer=model,
        vocab_size=24,
        model_type="unigram",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        user_defined_symbols=["<extra_id_1>", "<extra_id_0>"],
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def tokens(ways) -> set[str]:
    return {" ".join(PEGASUS.vocabulary[i] for i in way) for way in ways}


def test_every_way_to_write_a_word():
    assert tokens(spellings(PEGASUS, "我们")) == {"我 们", "我 ##们", "我们", "我们的"}
    assert tokens(spellings(PEGASUS, "信用卡")) == {"信用 卡"}
    assert tokens(spellings(PEGASUS, "ABC")) == {"abc"}  # as the tokenizer normalises
    assert spellings(PEGASUS, "龙") == ()  # it is never written
    assert not any(PEGASUS.unk_id in way for way in spellings(PEGASUS, "我龙"))


def test_every_way_to_write_a_word_in_pieces(pieces):
    texts = pieces.pieces()
    ways = spellings(pieces, "信用卡")
    assert tuple(i for i in pieces.encode("信用卡") if texts[i]) in ways and len(ways) > 1
    assert all("信用卡" in pieces.decode(list(way)).replace(" ", "") for way in ways)
    assert spellings(pieces, "\0") == ()  # of which nothing is left


def test_added_tokens_are_pieces_too(pieces, tmp_path):
    pieces.save(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<extra_id_9>": pieces.vocab_size + 1}))
    added = load_tokenizer(tmp_path)
    assert added.pieces() == [*pieces.pieces(), "", "<extra_id_9>"]
    assert sentinels(added) == (*sentinels(pieces), pieces.vocab_size + 1)


def test_sentinels_that_are_special_are_sentinels(pieces, tmp_path):
    """As transformers keeps T5's: decoding leaves them out, so that no piece is left of them."""
    pieces.save(tmp_path)
    size = pieces.vocab_size
    about = {str(size + i): {"content": f"<extra_id_{i}>", "special": True} for i in (8, 9)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": about}))
    special = load_tokenizer(tmp_path)
    assert special.pieces()[size:] == [""] * 10 and sentinels(special) == (*sentinels(pieces), size + 8, size + 9)


def test_a_cased_vocabulary_tells_capitals_apart():
    vocabulary = [*SPECIALS, "Apple", "apple", "A", "##pple", "pple"]
    cased = PegasusTokenizer(vocabulary, settings=Settings(cased=True))
    ways = {" ".join(cased.vocabulary[i] for i in way) for way in spellings(cased, "Apple")}
    assert ways == {"Apple", "A ##pple"}  # not "A pple", which is two words
    assert "apple" in {" ".join(vocabulary[i] for i in way) for way in spellings(PegasusTokenizer(vocabulary), "Apple")}


def test_letters_of_a_word_go_on_and_words_are_apart(pieces):
    """Of Latin words the pieces that continue one alone: else each letter would double the ways."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    latin = PegasusTokenizer([*SPECIALS, *letters, *(f"##{x}" for x in letters), "form", "##form", "deep", "##er"])
    ways = {" ".join(latin.vocabulary[i] for i in way) for way in spellings(latin, "transformer")}
    assert len(ways) == 8 and "t ##r ##a ##n ##s ##form ##er" in ways
    assert len(spellings(latin, "artificial")) == len(spellings(latin, "summarization")) == 2
    ways = {" ".join(latin.vocabulary[i] for i in way) for way in spellings(latin, "deep form")}
    assert {"deep form", "d ##e ##e ##p f ##o ##r ##m"} <= ways and not any("##form" in way for way in ways)


def test_a_word_is_not_written_by_bytes():
    """Nor by those of a part of it; and the name of a byte is no text."""
    made = SentencePieceTokenizer(train_sentencepiece(["我们的信用卡，A B。", "我们 信用 AB"] * 20, 400))
    byte = {piece: i for i, piece in enumerate(made.vocabulary) if piece.startswith("<0x")}
    assert len(byte) == 256 and not any(made.pieces()[i] for i in byte.values())
    assert spellings(made, "0") == ((made.piece_id("<0x30>"),),)
    bytes_of = {c: tuple(byte[f"<0x{b:02X}>"] for b in c.encode()) for c in "我们龙"}
    ways = spellings(made, "我们")
    for way in (bytes_of["我"], bytes_of["们"]):  # whatever stands beside them
        assert way in ways
    assert all(made.decode(way).replace(" ", "") in ("我们", "我", "们") or "我们" in made.decode(way) for way in ways)
    (way,) = [way for way in spellings(made, "龙") if len(way) == 3]
    assert way == bytes_of["龙"]
    ways = spellings(made, "我龙")
    assert (made.piece_id("我"), *bytes_of["龙"]) in ways and bytes_of["我"] in ways and bytes_of["龙"] not in ways


def test_a_word_of_too_many_ways_is_refused():
    many = PegasusTokenizer([*SPECIALS, *("啊" * n for n in range(1, 6))])
    with pytest.raises(
        DataError, match="forbid has '啊啊啊啊啊啊啊啊啊啊啊啊', which the vocabulary writes in 1,000 ways"
    ):
        spellings(many, "啊" * 12)


def test_what_a_text_begins_with():
    assert opening(PEGASUS, "") == () and opening(PEGASUS, "我们的卡") == tuple(PEGASUS.encode("我们的卡"))
    with pytest.raises(DataError, match="begin is '龙': the model's vocabulary cannot write it"):
        opening(PEGASUS, "龙")


def test_sentinels(pieces):
    assert [pieces.piece_id(f"<extra_id_{i}>") for i in (1, 0)] == list(sentinels(pieces))
    assert [PEGASUS.vocabulary[i] for i in sentinels(PEGASUS)] == ["extra0", "extra1"]
