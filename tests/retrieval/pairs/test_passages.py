"""Pairs of sentences by overlap, against plain sets; bounds, draws, and what is refused."""

import json
from itertools import combinations

import pytest

from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.sentences import split_sentences
from retrieval.pairs.commands import PassagesConfig, passages
from retrieval.pairs.passages import Overlap, jaccard, passage_pairs, sentence_pairs
from retrieval.pairs.same import said, tokens, words
from retrieval.pairs.tally import SAME, Tally
from training.files.errors import DataError
from training.telling import show

DOCUMENT = (
    "全国铁路今年九月发送货物二十九亿吨。国家铁路今年九月发送货物二十九亿吨，同比增长。今天北方多地出现大风天气。"
    "全国铁路今年九月发送货物二十九亿吨！"
)
ALL = {"least": 0, "most": 1, "shortest": 2, "length": 8, "pairs_a_document": 1000}


def plain(one: list[str], other: list[str]) -> float:
    return len({*one} & {*other}) / len({*one} | {*other})


def test_the_share_is_that_of_sets():
    sets = [tokens(text) for text in split_sentences(DOCUMENT, faithful=False, max_length=8)] + [[], ["一", "一"]]
    found = jaccard(sets)
    for (i, one), (j, other) in combinations(enumerate(sets), 2):
        assert found[i, j] == found[j, i] == pytest.approx(plain(one, other) if one or other else 0)


@pytest.mark.parametrize("of", ["characters", "words"])
def test_pairs_lie_within_the_bounds(of):
    documents = [*read_documents([str(CORPUS / "heldout.jsonl")])]
    overlap = {"least": 0.15, "most": 0.5, "of": of, "shortest": 5, "pairs_a_document": 2, "length": 16}
    found = passage_pairs(documents, **overlap)
    shares = [plain(*((tokens if of == "characters" else words)(text) for text in pair)) for pair in found]
    assert len(found) > 5 and min(shares) >= 0.15 and max(shares) <= 0.5
    texts = [text for pair in found for text in pair]
    assert len({*map(said, texts)}) == len(texts) and min(len(tokens(text)) for text in texts) >= 5
    of_documents = [len(pairs) for pairs in sentence_pairs(documents, Overlap(**overlap), Tally())]
    assert max(of_documents) == 2 and sum(of_documents) == len(found)
    assert passage_pairs(documents, **overlap) == found
    assert passage_pairs(documents, **overlap, seed=1) != found
    # What is taken of a document depends on it and its number alone.
    assert {*passage_pairs(documents[:20], **overlap)} <= {*found}


def test_copies_are_no_pair_and_a_sentence_is_in_one(monkeypatch):
    first, second, third, copy = split_sentences(DOCUMENT, faithful=False, max_length=8)
    overlap = ALL | {"least": 0.5}
    assert passage_pairs([DOCUMENT], **overlap) in ([(first, second)], [(second, copy)])
    assert len(passage_pairs([DOCUMENT] * 3, **ALL)) == len(passage_pairs([DOCUMENT], **ALL)) == 1
    tally = Tally()
    assert [*sentence_pairs([first + copy], Overlap(**overlap), tally)] == [[]] and tally.dropped[SAME] == 1
    weather = "天气预报说明天全国大部分地区晴到多云。"
    monkeypatch.setattr("retrieval.pairs.passages.PASSAGE", len(first + second))  # further sentences are compared apart
    assert passage_pairs([first + second + third + weather], **ALL) == [(first, second), (third, weather)]
    assert len(passage_pairs([first + second + third + weather], **ALL | {"pairs_a_document": 1})) == 1


def run(tmp_path, documents: list[str], **overlap) -> list[str]:
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents), "utf-8")
    config = PassagesConfig(
        data=(str(tmp_path / "d.jsonl"),), out=str(tmp_path / "o.tsv"), overlap=Overlap(**overlap), on_bad_record="skip"
    )
    passages(config)
    return (tmp_path / "o.tsv").read_text("utf-8").splitlines()


def test_the_command_writes_what_the_function_gives(tmp_path, capsys):
    show()
    documents = [*read_documents([str(CORPUS / "heldout.jsonl")])]
    made = run(tmp_path, documents, least=0.2, shortest=4)
    wanted = passage_pairs(documents, least=0.2, shortest=4)
    assert made == ["\t".join(" ".join(x.split()) for x in pair) for pair in wanted]
    assert f"{len(documents)} documents; {tmp_path / 'o.tsv'}: {len(made)} pairs; left out: " in capsys.readouterr().out


def test_no_pair_says_which_bound_left_how_many_out(tmp_path):
    with pytest.raises(
        DataError, match="1 documents: no pairs; left out: 5 pairs that share less than 0.99, 1 pairs of the same"
    ) as refused:
        run(tmp_path, [DOCUMENT[:-1]], least=0.99, most=1, shortest=2, length=8)
    assert "\n" not in str(refused.value) and not (tmp_path / "o.tsv").exists()
    with pytest.raises(DataError, match="no pairs; left out: .* pairs that share more than 0.01"):
        run(tmp_path, [DOCUMENT], least=0, most=0.01)
    with pytest.raises(DataError, match="2 documents: no pairs"):
        run(tmp_path, ["天气好", "嗯"])


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="least is 0.8 and most 0.4: most is from least to 1"):
        Overlap(least=0.8, most=0.4)
    with pytest.raises(ValueError, match="least is 1.5: it must be at least 0 and below 1"):
        Overlap(least=1.5)
    with pytest.raises(ValueError, match="of is 'letters': it must be characters, words"):
        Overlap(of="letters")
    with pytest.raises(ValueError, match="is one text: give a list of texts"):
        passage_pairs("今天天气")
    with pytest.raises(DataError, match="no such file|No such file"):
        passages(PassagesConfig(data=(str(tmp_path / "none.txt"),), out=str(tmp_path / "o.tsv")))
