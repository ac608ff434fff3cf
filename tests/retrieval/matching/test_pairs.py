"""Rows are read as they are written; a bad one is named by line and reason, or None stands in its place."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.documents import SKIP
from pegasus_zh.text.records import BadRecord
from retrieval.matching.alphabet import RARE, make_alphabet
from retrieval.matching.pairs import Reader, Row, Wanted, named_rare, read_pairs, read_rows
from tests.retrieval.vectors.test_encoding import TOKENIZER
from training.files.errors import DataError

LABELLED, PAIRS = Wanted(numbers=True, labels=True), Wanted(numbers=True, labels=False)
SOFT, SINGLE, PLAIN = LABELLED._replace(soft=True), PAIRS._replace(single=True), LABELLED._replace(numbers=False)
ALPHABET = make_alphabet(Counter({"12": 9, "7": 5, "0": 5}))


def written(folder: Path, text: str, name: str = "p.tsv") -> str:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def rows_of(folder: Path, text: str, wanted: Wanted, name: str = "p.tsv") -> list[tuple]:
    found = [row for row in read_rows(written(folder, text, name), wanted) if row]
    assert [row.place for row in found][:1] == [f"{folder / name}, line {1 + ('label' in text.split()[0])}"]
    return [row[1:] for row in found]


ROWS = [("12 7", "7", 1.0, ("1",)), ("0 0", "12 5", 0.0, ("0",))]
OBJECTS = [{"a": "12 7", "b": 7, "label": 1}, {"a": "0 0", "b": "12 5", "label": "0"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.tsv", "12 7\t7\t1\n0 0\t12 5\t0\n"),
        ("p.tsv", "\ufeff12 7\t7\t1\r\n0 0\t12 5\t0\r\n\n \n"),
        ("p.tsv.gz", "12 7\t7\t1\n0 0\t12 5\t0"),
        ("p.csv", '12 7,7,1\n"0 0","12 5",0\n'),
        ("p.csv", "text1,text2,label\n12 7,7,1\n0 0,12 5,0\n"),
        ("p.csv", "label,id,question1,question2\n1,8,12 7,7\n0,9,0 0,12 5\n"),
        ("p.jsonl", '{"id": 3, "label": 1, "a": "12 7", "b": "7"}\n{"b": "12 5", "a": "0 0", "label": 0, "id": 4}\n'),
        ("p.csv.gz", "12 7,7,1\n0 0,12 5,0\n"),
        ("p.jsonl", "\n".join(map(json.dumps, OBJECTS))),
        ("p.jsonl.gz", "\n".join(map(json.dumps, OBJECTS))),
        ("p.json", json.dumps(OBJECTS)),
    ],
)
def test_every_kind_of_file_has_the_same_rows(tmp_path, name, text):
    assert rows_of(tmp_path, text, LABELLED, name) == ROWS


def test_what_is_asked_for_alone_is_looked_at(tmp_path):
    assert rows_of(tmp_path, "1\t2\n3\t4\tx\n", PAIRS) == [("1", "2", None, ()), ("3", "4", None, ("x",))]
    assert rows_of(tmp_path, "1\n3\t4\n", SINGLE) == [("1", "", None, ()), ("3", "4", None, ())]
    assert rows_of(tmp_path, "1 2\n3\n", SINGLE, "p.txt") == [("1 2", "", None, ()), ("3", "", None, ())]
    assert rows_of(tmp_path, "今天\tx y\t1.0\n", PLAIN) == [("今天", "x y", 1.0, ("1.0",))]
    soft = rows_of(tmp_path, "1\t2\t0.25\n1\t2\t1\n1\t2\t0\n1\t2\t1e-3\n", SOFT)
    assert [row[2] for row in soft] == [0.25, 1, 0, 0.001]


MUST = "use --on-bad-record skip to go on without such$"
NUMBERS = rf"is no number from 0 on; texts are to be numbers between blanks; mend the row, or {MUST}"
COLUMNS = rf"not text TAB text TAB label; mend the row, or {MUST}"


@pytest.mark.parametrize(
    ("wanted", "name", "bad", "reason", "message"),
    [
        (LABELLED, "p.tsv", "1 x\t2\t1", "no numbers", f", line 2: 'x' in column 1 {NUMBERS}"),
        (LABELLED, "p.tsv", "1\t2 -3\t1", "no numbers", f", line 2: '-3' in column 2 {NUMBERS}"),
        (LABELLED, "p.tsv", "1\t2.5\t1", "no numbers", f", line 2: '2.5' in column 2 {NUMBERS}"),
        (LABELLED, "p.tsv", "１２\t2\t1", "no numbers", f", line 2: '１２' in column 1 {NUMBERS}"),
        (LABELLED, "p.tsv", "1,2\t2\t1", "no numbers", f", line 2: '1,2' in column 1 {NUMBERS}"),
        (LABELLED, "p.tsv", "1 2", "columns", rf", line 2: 1 column\(s\), {COLUMNS}"),
        (LABELLED, "p.tsv", "1\t2", "columns", rf", line 2: 2 column\(s\), {COLUMNS}"),
        (LABELLED, "p.tsv", "1\t2\t3\t1", "columns", rf", line 2: 4 column\(s\), {COLUMNS}"),
        (PAIRS, "p.tsv", "1 2", "columns", r", line 2: 1 column\(s\), not text TAB text; mend the row, or "),
        (SINGLE, "p.tsv", "1\t2\t3\t4", "columns", r", line 2: 4 column\(s\), not text TAB text; "),
        (LABELLED, "p.tsv", "\t2\t1", "an empty text", ", line 2: column 1 is empty; remove the row, or "),
        (LABELLED, "p.tsv", "1\t \t1", "an empty text", ", line 2: column 2 is empty; remove the row, or "),
        (SINGLE, "p.tsv", "1\t", "an empty text", ", line 2: column 2 is empty; remove the row, or "),
        (SINGLE, "p.txt", "", "an empty text", ", line 2: column 1 is empty; remove the row, or "),
        (LABELLED, "p.tsv", "1\t2\t2", "labels", f", line 2: the label is '2', and must be 0 or 1; mend it, or {MUST}"),
        (LABELLED, "p.tsv", "1\t2\t-1", "labels", ", line 2: the label is '-1', and must be 0 or 1; "),
        (LABELLED, "p.tsv", "1\t2\t0.5", "labels", ", line 2: the label is '0.5', and must be 0 or 1; "),
        (LABELLED, "p.tsv", "1\t2\t", "labels", ", line 2: the label is '', and must be 0 or 1; "),
        (LABELLED, "p.tsv", "1\t2\tnan", "labels", ", line 2: the label is 'nan', and must be 0 or 1; "),
        (SOFT, "p.tsv", "1\t2\t1.01", "labels", ", line 2: the label is '1.01', and must be a number from 0 to 1; "),
        (SOFT, "p.tsv", "1\t2\tnan", "labels", ", line 2: the label is 'nan', and must be a number from 0 to 1; "),
        (PLAIN, "p.tsv", "今天\t天气\t是", "labels", ", line 2: the label is '是', and must be 0 or 1; "),
        (LABELLED, "p.tsv", "", "blank line", ", line 2 is blank: remove it"),
        (LABELLED, "p.tsv.gz", "1\t2\t5", "labels", "p.tsv.gz, line 2: the label is '5', and must be 0 or 1; "),
        (LABELLED, "p.csv", "1,2", "columns", r"p.csv, line 2: 2 column\(s\), not text TAB text TAB label; "),
        (LABELLED, "p.jsonl", "", "blank line", "p.jsonl, line 2 is blank: remove it"),
        (LABELLED, "p.jsonl", '{"a": "1"', "broken JSON", r"p.jsonl, line 2: broken JSON \("),
        (LABELLED, "p.jsonl", '{"a": "1", "b": "2"}', "columns", r"p.jsonl, line 2: 2 column\(s\), not "),
        (LABELLED, "p.jsonl", '{"a": "1", "b": -2, "c": 1}', "no numbers", f"line 2: '-2' in column 2 {NUMBERS}"),
        (LABELLED, "p.jsonl", '{"a": "1", "b": "2", "c": true}', "labels", "line 2: the label is 'True', and must "),
        (PLAIN, "p.jsonl", '{"a": "好", "b": null, "c": 1}', "field not a string", "line 2: field 'b' is NoneType, "),
        (
            PLAIN,
            "p.jsonl",
            '{"a": ["好"], "b": "2", "c": 1}',
            "field not a string",
            "line 2: field 'a' is list, not a string",
        ),
        (PLAIN, "p.jsonl", r'{"a": "\ud800", "b": "2", "c": 1}', "not Unicode", "line 2: half of a surrogate pair in "),
    ],
)
def test_a_bad_row_is_named_or_left_out(tmp_path, wanted, name, bad, reason, message):
    good = "1" if wanted.single else "1\t2\t1" if wanted.labels else "1\t2"
    if ".csv" in name:
        good = good.replace("\t", ",")
    if ".jsonl" in name:
        good = '{"a": "1", "b": "2", "c": 1}'
    path = written(tmp_path, f"{good}\n{bad}\n{good}\n", name)
    with pytest.raises(BadRecord, match=message) as refused:
        list(read_rows(path, wanted, "stop", Counter()))
    with pytest.raises(BadRecord) as alone:
        list(read_rows(path, wanted))
    assert str(refused.value) == f"{alone.value}, or {SKIP}"  # which is only offered where it is counted
    assert "\n" not in str(refused.value) and refused.value.reason == reason and str(refused.value).startswith(path)
    counts: Counter[str] = Counter()
    first, none, last = read_rows(path, wanted, "skip", counts)
    assert first and last and first[1:] == last[1:] and none is None and counts == {reason: 1}
    assert first.place == f"{path}, line 1" and last.place == f"{path}, line 3"


def test_a_heading_says_how_many_columns_there_are(tmp_path):
    path = written(tmp_path, "text1,text2,label\n1,2,1\n1,2\n", "p.csv")
    with pytest.raises(BadRecord, match=r"p.csv, line 3: 2 column\(s\), and the first line names 3: text1, "):
        list(read_rows(path, LABELLED))


def read(*rows: tuple[str, str]) -> tuple[Reader, list[list[list[int]]]]:
    reader = Reader(ALPHABET)
    pairs = [reader.pair(Row("", a, b, None)) for a, b in rows]
    assert all(x.dtype == np.int32 for pair in pairs for x in pair[:2])
    return reader, [[x.tolist() for x in pair[:2]] for pair in pairs]


def test_an_unknown_number_is_less_than_0_by_its_order(said):
    first = ALPHABET.specials
    reader, found = read(("12 99 7 98", "98 99 12"), ("5", "0"), ("12", ""))
    assert found[0] == [[first, -1, first + 2, -2], [-2, -1, first]]
    assert found[1:] == [[[-1], [first + 1]], [[first], []]]
    assert reader.ids == 10 and reader.unknown == 5
    reader.tell("the pairs")
    assert said == ["the pairs: 10 ids, 5 of them (50.0%) not of the vocabulary"]


def test_plain_text_has_the_tokenizers_ids():
    reader = Reader(TOKENIZER)
    pair = reader.pair(Row("", "今天猫", "天气", 1.0))
    assert pair.a.tolist() == TOKENIZER.encode("今天猫") and pair.b.tolist() == TOKENIZER.encode("天气")
    assert pair.label == 1 and reader.ids == 5 and reader.unknown == 1
    assert np.isnan(reader.pair(Row("", "今天", "天", None)).label)


def test_numbers_are_no_plain_text():
    reader = Reader(TOKENIZER)
    for _ in range(19):
        reader.pair(Row("p.tsv, line 20", "12 7", "7", None))
    with pytest.raises(DataError, match="p.tsv, line 20: the first 20 rows are numbers alone, .* align, and give its "):
        reader.pair(Row("p.tsv, line 20", "0", "7", None))
    other = Reader(TOKENIZER)
    for n in range(40):  # after a text that is none, numbers may come
        other.pair(Row("", "今天" if n == 5 else "12", "7", None))


def test_pairs_of_several_files_are_in_order(tmp_path, said):
    one = written(tmp_path, "12\t7\t1\nx\t7\t1\n7\t0\t3\n7\t0\t2\n0\t0\t0\n", "one.tsv")
    two = written(tmp_path, "7\t7\t1\n", "two.tsv")
    found = read_pairs([one, two], Reader(ALPHABET), LABELLED, "skip")
    assert [pair.label for pair in found] == [1, 0, 1]
    assert [pair.row for pair in found] == [1, 5, 6]  # those that were left out have numbers too
    assert said == [f"{one}: left out 2 rows (labels), 1 rows (no numbers)"]
    with pytest.raises(DataError, match="one.tsv, line 2: 'x' in column 1"):
        read_pairs([two, one], Reader(ALPHABET), LABELLED)


def test_a_file_of_nothing_is_refused(tmp_path):
    good = written(tmp_path, "12\t7\t1\n", "good.tsv")
    for text, why in (("", "it is empty"), ("\n \n", "it is empty"), ("1\t2\n1\t2\t3\n", "1 rows .columns., 1 rows")):
        path = written(tmp_path, text, "none.tsv")
        with pytest.raises(DataError, match=rf"none.tsv: no row that can be used \({why}") as refused:
            read_pairs([good, path], Reader(ALPHABET), LABELLED, "skip")
        assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match="p.pdf: unknown kind of file"):
        read_pairs([written(tmp_path, "", "p.pdf")], Reader(ALPHABET), LABELLED)


IDS = st.lists(st.integers(-len(RARE), -1) | st.integers(100, 110), max_size=60)


@given(a=IDS, b=IDS)
def test_rare_numbers_are_numbered_by_their_order(a: list[int], b: list[int]) -> None:
    """The same number has the same id on both sides, another one another; what is known stays."""
    ids = np.array(a + b, np.int32)
    found = named_rare(ids, 100, numbered=True)
    assert found.dtype == np.int32 and found.shape == ids.shape
    np.testing.assert_array_equal(found[ids >= 0], ids[ids >= 0])
    rare = [*dict.fromkeys(x for x in a + b if x < 0)]
    assert [RARE[rare.index(x)] for x in a + b if x < 0] == found[ids < 0].tolist()
    np.testing.assert_array_equal(named_rare(ids, 100, numbered=False), np.where(ids < 0, 100, ids))


def test_more_rare_numbers_than_ids_begin_again():
    ids = -1 - np.arange(len(RARE) + 2, dtype=np.int32)
    assert named_rare(ids, 100, numbered=True).tolist() == [*RARE, RARE[0], RARE[1]]
