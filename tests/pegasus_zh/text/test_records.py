"""Records: every kind of file gives the same ones to every command; what is none has a place and a remedy."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.evaluation import read_pairs as read_scored
from pegasus_zh.finetune import read_whole_pairs
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.lines import is_blank, is_blank_line
from pegasus_zh.text.pairs import Pair, parse_pair, read_pairs
from pegasus_zh.text.records import BadRecord, cells, read_rows
from retrieval.texts import read_columns, read_texts, scored
from training.files.errors import DataError

PAIRS = [("第一篇，讲天气。", "天气"), ('第二篇\n有"两行"', "两行"), ("第三篇", "三")]


def table(rows, ending: str) -> str:
    if ending == ".tsv":
        return "".join("\t".join(row) + "\n" for row in rows)
    written = io.StringIO(newline="")
    csv.writer(written).writerows(rows)
    return written.getvalue()


def contents(pairs, names=("source", "reference")) -> dict[str, str]:
    """The same pairs in every kind of file; those of a .tsv on one line each."""
    objects = [dict(zip(names, pair, strict=True)) for pair in pairs]
    flat = [(reference, source.replace("\n", " ")) for source, reference in pairs]
    back = [(reference, source) for source, reference in pairs]
    return {
        "a.jsonl": "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in objects),
        "lines.json": "".join(json.dumps(x) + "\n" for x in objects),
        "array.json": json.dumps(objects, indent=2, ensure_ascii=False),
        "a.tsv": table(flat, ".tsv"),
        "named.tsv": table([names, *[(s, r) for r, s in flat]], ".tsv"),
        "a.csv": table([names[::-1], *back], ".csv"),
        "more.csv": table([("id", *names), *[(str(n), s, r) for n, (r, s) in enumerate(back)]], ".csv"),
    }


def packed(path: Path, content: bytes) -> str:
    zstd = pa.Codec("zstd")
    content = {".gz": gzip.compress, ".zst": lambda x: zstd.compress(x, asbytes=True)}.get(path.suffix, bytes)(content)
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", contents(PAIRS))
def test_every_kind_of_file_gives_the_pairs_to_every_command(tmp_path, name, packing):
    """As they are written, with a mark of the byte order and CR LF, and with blank lines at the end."""
    expected = [(s.replace("\n", " "), r) for s, r in PAIRS] if ".tsv" in name else PAIRS
    text = contents(PAIRS)[name]
    for content in (
        text,
        "\ufeff" + text,
        text + "\n \n\u200b\n",
        text if ".csv" in name else text.replace("\n", "\r\n"),
    ):
        path = packed(tmp_path / (name + packing), content.encode())
        assert list(read_pairs(path)) == [Pair(*pair) for pair in expected]
        assert read_whole_pairs(path) == expected
        rows = read_rows(path, ("source", "reference"))
        assert [parse_pair(row, ("source", "reference")) for row in rows if not is_blank_line(row.data)] == expected
        assert read_scored(path, "reference", "source") == tuple(
            map(list, zip(*[p[::-1] for p in expected], strict=True))
        )
        if name != "a.tsv":  # which has no names
            assert list(read_texts(path, "source")) == [s for s, _ in expected]


@pytest.mark.parametrize("name", ["A.TSV", "A.Csv", "A.JSONL", "A.JSON.GZ"])
def test_capitals_of_an_ending_count_for_nothing(tmp_path, name):
    kind = name.lower().split(".")[1]
    content = contents(PAIRS)["array.json" if kind == "json" else f"a.{kind}"].encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    expected = [(s.replace("\n", " "), r) for s, r in PAIRS] if name == "A.TSV" else PAIRS
    assert read_whole_pairs(str(tmp_path / name)) == expected


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]))] * 2), min_size=1))
def test_csv_and_arrays_hold_any_text(tmp_path_factory, rows):
    """What Python's own writers wrote, each row where it stands."""
    folder = tmp_path_factory.mktemp("any")
    written = table([("source", "reference"), *rows], ".csv")
    (folder / "a.csv").write_text(written, "utf-8", newline="")
    (folder / "a.json").write_text(json.dumps([{"source": s, "reference": r} for s, r in rows], indent=1), "utf-8")
    for name in ("a.csv", "a.json"):
        found = [cells(row) for row in read_rows(str(folder / name), ("source",))]
        assert [(x["source"], x["reference"]) for x in found] == rows
    lines = [row.line for row in read_rows(str(folder / "a.json"))]
    assert lines == [2 + 4 * n for n in range(len(rows))]


def test_a_quotation_mark_within_a_column_is_a_character(tmp_path):
    """Only at its beginning does it hold lines together: of two inch marks no row between them is lost."""
    (tmp_path / "a.csv").write_text(
        'reference,source\n甲 5.5" 屏,甲\n乙,"一\n""二"", 三"\n丙,丙 "x\n丁 55" 屏,"丁"\n,""\n"\n",\n', "utf-8"
    )
    found = [cells(row) for row in read_rows(str(tmp_path / "a.csv"))]
    assert [(x["reference"], x["source"]) for x in found] == [
        ('甲 5.5" 屏', "甲"),
        ("乙", '一\n"二", 三'),
        ("丙", '丙 "x'),
        ('丁 55" 屏', "丁"),
        ("", ""),
        ("\n", ""),
    ]


def test_a_heading_stands_below_blank_lines(tmp_path):
    for name in ("a.tsv", "a.csv"):
        mark = "," if name == "a.csv" else "\t"
        (tmp_path / name).write_text(f"\n \nreference{mark}source\n题{mark}今天天气\n", "utf-8")
        assert list(read_pairs(str(tmp_path / name))) == [Pair("今天天气", "题")]
        assert [row.line for row in read_rows(str(tmp_path / name))] == [4]
    (tmp_path / "none.tsv").write_text("\n题\t今天天气\n", "utf-8")
    assert [row.line for row in read_rows(str(tmp_path / "none.tsv"))] == [1, 2]


def test_a_json_may_be_one_object_over_several_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        "\n" + json.dumps({"source": "甲", "reference": "题"}, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    assert list(read_pairs(str(path))) == [Pair("甲", "题")]
    path.write_text('{"source":\n "甲"}\n{"source": "乙"}\n', "utf-8")
    with pytest.raises(DataError, match="line 1: broken JSON"):
        list(read_pairs(str(path)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "title.csv",
            "title,content\n甲,乙\n",
            "title.csv: no column 'source' and no 'reference'; give --field and --ref.* one of: title, content",
        ),
        (
            "标题.tsv",
            "标题\t正文\n甲\t乙\n",
            "标题.tsv: no column 'source' and no 'reference'; give .* one of: 标题, 正文",
        ),
        (
            "编号.csv",
            "编号,标题,摘要\n1,甲,乙\n",
            "编号.csv: no column 'source' and no 'reference'; give --field and .*摘要$",
        ),
        ("blank.tsv", "甲\t乙\n\n丙\t丁\n", "blank.tsv, line 2 is blank: remove it"),
        ("blank.jsonl", '{"source": "甲", "reference": "题"}\n\u3000\n{}\n', "blank.jsonl, line 2 is blank: remove it"),
        (
            "none.csv",
            "甲,乙\n",
            "line 1: no field 'source' and no 'reference'; give .* one of: 甲, 乙; or let the first line be ref",
        ),
        (
            "within.json",
            '{"version": "1",\n "data": [{"source": "甲"}]}',
            "within.json, line 1: no field 'source'.*; the records are in an array within 'data': keep that alone",
        ),
        (
            "again.json",
            '[{"source": "甲", "reference": "题"}[{"source": "乙"}]',
            "line 1: broken JSON .neither , nor the end",
        ),
        ("three.csv", "source,reference\n甲,乙,丙\n", "line 2: 3 column.s., and .* names 2: source, reference; mend"),
        ("twice.csv", "source,source\n甲,乙\n", "line 1: two columns have the same name"),
        ("open.csv", 'source,reference\n甲,"乙\n丙,丁\n', "line 2: a quotation mark that nothing closes"),
        ("wild.csv", 'source,reference\n"甲"乙"",丁\n', "line 2: broken CSV"),
        ("cut.json", '[{"source": "甲", "reference": "题"},\n{"source": "乙"', "line 2: broken JSON"),
        ("two.json", '[{"source": "甲", "reference": "题"}]\n[]', "line 2: broken JSON"),
        (
            "comma.json",
            '[{"source": "甲", "reference": "题"} {"source": "乙"}]',
            "line 1: broken JSON .neither , nor the end",
        ),
        ("list.json", '[{"source": "甲", "reference": "题"}, ["乙"]]', "line 1: not a JSON object"),
        ("array.jsonl", '[{"source": "甲", "reference": "题"}]', "line 1: not a JSON object, but a JSON array"),
        ("number.jsonl", '{"source": "甲", "reference": 5}', "field 'reference' is int, not a string"),
        ("cr.tsv", "甲\t乙\r丙\t丁\r", "its lines end in CR alone; convert it, as by tr"),
        (
            "gbk.tsv",
            "天气很好\t今天天气很好，我们去公园\n".encode("gbk"),
            "line 1: byte 0x.*iconv -f gb18030 -t utf-8$",
        ),
        ("big5.tsv", "天氣很好\t今天天氣很好，我們去公園散步\n".encode("big5"), "iconv -f big5 -t utf-8$"),
        ("utf16.tsv", "天气很好\t今天天气很好\n".encode("utf-16"), "UTF-16, by its first two bytes; .*-f utf-16 -t"),
        ("le.tsv", "今天天气很好，这样的日子\n".encode("utf-16-le"), "line 1: byte 0x.*iconv -f utf-16-le -t utf-8$"),
        ("english.tsv", "plain words\there\n".encode("utf-16-le"), "every other byte is 0, as in UTF-16"),
        ("noise.tsv", bytes(range(128, 256)), "line 1: byte 0x80 is not UTF-8; convert the file$"),
        (
            "lfs.tsv",
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n",
            "lfs.tsv: a pointer of Git LFS",
        ),
        ("login.csv", "\ufeff<!DOCTYPE HTML>\n<html></html>\n", "login.csv: a page of HTML"),
        ("book.csv", b"PK\x03\x04\x14\x00" + bytes(range(40)), "book.csv: a zip archive, such as an .xlsx; unpack it"),
        ("packed.tsv", gzip.compress("甲\t乙\n".encode()), "packed.tsv: compressed by gzip; add .gz to its name"),
        ("excel.csv", 'reference;"source"\n甲;乙\n', "line 1: names with ';' between them, and a .csv has commas"),
        ("tabs.csv", "reference\tsource\n甲\t乙\n", "line 1: names with '.t' between them, .*; name it .tsv"),
        ("bad.tsv.zst", b"no zstd", "bad.tsv.zst: broken or truncated zstd"),
        ("none.tsv.zst", None, "none.tsv.zst: No such file|none.tsv.zst: Failed to open|none.tsv.zst: .*No such file"),
    ],
)
def test_what_is_no_record_has_a_place_and_a_remedy(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for read in (read_whole_pairs, lambda path: list(read_pairs(path))):
        with pytest.raises(DataError, match=message) as caught:
            read(str(tmp_path / name))
        assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_truncated_zst_is_refused(tmp_path):
    path = packed(tmp_path / "a.jsonl.zst", json.dumps({"text": "长" * 100_000}).encode())
    assert list(read_documents([path])) == ["长" * 100_000]
    Path(path).write_bytes(Path(path).read_bytes()[:-5])
    with pytest.raises(DataError, match="broken or truncated zstd"):
        list(read_documents([path]))


def test_lines_of_no_width_are_blank(tmp_path):
    invisible = [
        "",
        " \t\u3000\xa0",
        "\u200b",
        "\ufeff\u200d\u2060",
        "\x00\x1f\x7f",
        "\xad\u180e\u3164",
        "\u2028",
        "\U000e0020\U000e0041",
    ]
    for text in invisible:
        assert is_blank(text) and is_blank_line(text.encode() + b"\n")
    for text in ("。", "“", "（", "\u200ba", "ـ", "́a", "😀", "\ufffd", "é", "\u0600"):
        assert not is_blank(text) and not is_blank_line(text.encode())
    (tmp_path / "a.txt").write_text("一\n\u200b\n二\n\u3000\ufeff\n", "utf-8")
    assert list(read_documents([str(tmp_path / "a.txt")])) == ["一", "二"]
    with pytest.raises(DataError, match="line 2: no text; remove the line"):
        list(read_texts(str(tmp_path / "a.txt")))
    (tmp_path / "a.txt").write_text("一\n二\n\ufeff\n", "utf-8")
    assert list(read_texts(str(tmp_path / "a.txt"))) == ["一", "二"]


def test_a_heading_is_no_row_and_a_row_no_heading(tmp_path):
    path = tmp_path / "a.tsv"
    for heading in (
        "sentence1\tsentence2\tlabel",
        "Text A\ttext-b\tsimilarity_score",
        "句子1\t句子2\t标签",
        "q1\tq2\tscore",
        "cat\treview\tlabel",
        "sentence1\tsentence2\tgold_label",
        "类别\t评论\t情感",
    ):
        path.write_text(f"{heading}\n甲\t乙\t1\n", "utf-8")
        (row,) = read_columns(str(path))
        assert row.columns == ("甲", "乙", "1") and row.names == tuple(heading.split("\t"))
    path.write_text("#id\tquestion\tanswer\n甲\t乙\t1\n", "utf-8")
    assert [row[1:] for row in read_columns(str(path))] == [(("乙", "1"), ("question", "answer"))]  # an id is no text
    for first in ("甲\t乙\t1", "text\t乙\t1", "label printer\tscore board\t0"):
        path.write_text(f"{first}\n甲\t乙\t1\n", "utf-8")
        assert [row.columns for row in read_columns(str(path))][0] == tuple(first.split("\t"))


@pytest.mark.parametrize("name", ["score", "gold_label", "sim_score", "sentence_label", "Similarity Score", "相似度"])
def test_a_score_is_known_by_its_name(tmp_path, name):
    """Wherever it stands, with an id or without, by the same names that make a first line a heading."""
    path = tmp_path / "a.tsv"
    path.write_text(f"#id\ttext1\t{name}\ttext2\n7\t甲\t0.5\t2024\n", "utf-8")
    (row,) = read_columns(str(path))
    assert scored(row) == ("甲", "2024", 0.5)


def test_tabs_of_a_txt_and_a_character_of_nothing_are_told_once(tmp_path, said):
    (tmp_path / "n.txt").write_text("12\t今天\n13\t天气\n", "utf-8")
    assert list(read_texts(str(tmp_path / "n.txt"))) == ["12\t今天", "13\t天气"]
    (tmp_path / "n.tsv").write_text("12\t今\0天\n13\t天\0气\n", "utf-8")
    assert list(read_texts(str(tmp_path / "n.tsv"))) == ["今\0天", "天\0气"]
    tab, nothing = said
    assert "n.txt: a tab behind a number, and both belong to the text" in tab and "n.tsv: U+0000 in texts" in nothing


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.txt"])
def test_a_label_is_no_text(tmp_path, name):
    """Of a table without names the last column is read, which a text TAB label has the label in."""
    path, mark = tmp_path / name, "," if name == "a.csv" else "\t"
    path.write_text(f"今天天气{mark}3\n", "utf-8")
    with pytest.raises(DataError, match="line 1: ends in '3', a label and no text; keep the texts alone"):
        list(read_texts(str(path)))
    path.write_text(f"7{mark}10086\n", "utf-8")  # a number and a question that is one
    assert list(read_texts(str(path))) == (["7\t10086"] if name == "a.txt" else ["10086"])
    path.write_text(f"label{mark}review\n1{mark}今天天气\n", "utf-8")
    if name != "a.txt":
        assert list(read_texts(str(path), "review")) == ["今天天气"]
        with pytest.raises(DataError, match="no field 'text'; give --field one of: label, review"):
            list(read_texts(str(path)))


def test_a_blank_line_within_pairs_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("甲\t乙\n\u200b\n丙\t丁\n", "utf-8")
    with pytest.raises(BadRecord, match="line 2 is blank: remove it"):
        read_whole_pairs(str(path))
