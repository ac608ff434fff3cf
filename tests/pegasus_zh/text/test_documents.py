"""Documents: every format gives the texts that were written; every fault has one line with its place and remedy."""

import gzip
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.documents import mixed_records, parse_record, read_documents, record_chunks
from pegasus_zh.text.records import MAX_TEXT_BLOCK, BadRecord, Record
from pegasus_zh.text.sources import find_sources, read_records
from training.files.errors import DataError

TEXTS = ["今天天气很好。\n我们去公园。", "第二篇", "emoji 😀 and 生僻字 𠮷"]


def write(path: Path, texts: list[str]) -> Path:
    """The texts in the format that the path's ending names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"title": list("abc"), "text": texts}), path)
        return path
    if ".txt" in path.name:
        content = "\n\n".join(texts)
    else:
        content = "".join(json.dumps({"title": "题", "text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_every_format_gives_the_texts(tmp_path, name):
    assert list(read_documents([str(write(tmp_path / name, TEXTS))])) == TEXTS


def test_text_blocks(tmp_path):
    """A blank line may hold spaces, the ideographic one too; a byte order mark and carriage returns are no text."""
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\n一\r\n二\r\n\n \u3000\t\n\n三".encode())
    (source,) = find_sources([str(path)])
    assert list(read_records(source)) == [
        Record(str(path), 2, "一\n二".encode()),
        Record(str(path), 7, "三".encode()),
    ]


visible_lines = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)


@given(st.lists(st.lists(visible_lines, min_size=1).map("\n".join)))
def test_text_round_trip(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("txt") / "a.txt"
    path.write_bytes(("\n\n".join(texts) + "\n").encode())
    assert list(read_documents([str(path)])) == texts


@given(st.lists(st.text(), min_size=1), st.booleans())
def test_json_round_trip(tmp_path_factory, texts, escape):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes("\n".join(json.dumps({"text": text}, ensure_ascii=escape) for text in texts).encode())
    (source,) = find_sources([str(path)])
    records = list(read_records(source))
    assert [parse_record(record) for record in records] == texts
    assert [record.line for record in records] == list(range(1, len(texts) + 1))


def test_sources_come_in_order_and_once(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.jsonl"):
        write(tmp_path / name, [name])
    first, pattern = str(tmp_path / "c.jsonl"), str(tmp_path / "*.jsonl")
    assert list(read_documents([first, pattern, first])) == ["c.jsonl", "a.jsonl", "b.jsonl"]


@pytest.fixture(scope="session")
def faulty(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    contents = {
        "empty.txt": b"",
        "latin.csv": b"a,b",
        "cut.jsonl.gz": gzip.compress(json.dumps({"text": "长" * 10_000}).encode())[:-20],
        "plain.jsonl.gz": b'{"text": "a"}\n',
        "broken.parquet": b"PAR1 no",
        "gbk.jsonl": b'{"text": "a"}\n\n{"text": "' + "中".encode("gbk") + b'"}\n',
        "gbk.txt": "一\n".encode() + "中".encode("gbk"),
        "broken.jsonl": b'{"text": "a"}\n{"text": \n',
        "deep.jsonl": b"[" * 100_000,
        "list.jsonl": b'["a"]\n',
        "other.jsonl": b'{"title": "a", "body": "b"}\n',
        "number.jsonl": b'{"text": 3}\n',
        "half.jsonl": b'{"text": "\\ud83d"}\n',
        "endless.txt": b"one document a line\n" * (MAX_TEXT_BLOCK // 20 + 1),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    pq.write_table(pa.table({"title": ["a"], "n": [1]}), folder / "columns.parquet")
    pq.write_table(pa.table({"text": [1]}), folder / "integers.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), folder / "null.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.txt", ["No such file", "check the path"]),
        ("*.nothing", ["no file matches"]),
        ("", ["is a folder", "*.jsonl.gz"]),
        ("empty.txt", ["is empty", "remove it"]),
        ("latin.csv", ["unknown kind", ".jsonl"]),
        ("cut.jsonl.gz", ["truncated gzip", "fetch"]),
        ("plain.jsonl.gz", ["broken or truncated gzip", "fetch"]),
        ("broken.parquet", ["not a readable Parquet file"]),
        ("gbk.jsonl", ["line 3", "byte 0xd6 is not UTF-8", "convert"]),
        ("gbk.txt", ["line 2", "byte 0xd6 is not UTF-8", "convert"]),
        ("broken.jsonl", ["line 2", "broken JSON", "repair"]),
        ("deep.jsonl", ["line 1", "broken JSON", "repair"]),
        ("list.jsonl", ["line 1", "a JSON array; write one object a line", "--on-bad-record skip"]),
        ("other.jsonl", ["line 1", "no field 'text'", "title, body"]),
        ("number.jsonl", ["line 1", "field 'text' is int", "--on-bad-record skip"]),
        ("half.jsonl", ["line 1", "surrogate"]),
        ("endless.txt", ["line 1", "without a blank line", ".jsonl"]),
        ("columns.parquet", ["no column 'text'", "title, n"]),
        ("integers.parquet", ["int64", "--field"]),
        ("null.parquet", ["row 2", "no string"]),
    ],
)
def test_faults_have_one_line_with_place_and_remedy(faulty, name, words):
    with pytest.raises(DataError) as caught:
        list(read_documents([f"{faulty}/{name}"]))
    message = str(caught.value)
    assert "\n" not in message and str(faulty) in message
    assert all(word in message for word in words), message


def test_no_data_is_refused():
    with pytest.raises(DataError, match="--data"):
        find_sources([])


def test_skipping_counts_by_reason_and_goes_on(faulty):
    names = ["gbk.jsonl", "gbk.txt", "broken.jsonl", "list.jsonl", "other.jsonl", "number.jsonl", "half.jsonl"]
    skipped: Counter[str] = Counter()
    data = [str(faulty / name) for name in [*names, "null.parquet"]]
    assert list(read_documents(data, on_bad_record="skip", skipped=skipped)) == ["a", "a", "a"]
    assert skipped == {
        "not UTF-8": 2,
        "broken JSON": 1,
        "not a JSON object": 1,
        "missing field": 1,
        "field not a string": 2,
        "not Unicode": 1,
    }
    with pytest.raises(DataError, match="truncated"):  # nobody knows how much is lost
        list(read_documents([str(faulty / "cut.jsonl.gz")], on_bad_record="skip"))


def test_bad_records_pass_between_processes():
    error = pickle.loads(pickle.dumps(BadRecord("broken JSON", "a.jsonl, line 1: broken")))
    assert (error.reason, str(error)) == ("broken JSON", "a.jsonl, line 1: broken")


@given(st.lists(st.binary(max_size=50)), st.integers(1, 100))
def test_chunks_hold_all_and_little_more_than_their_size(data, size):
    records = [Record("a", n, content) for n, content in enumerate(data)]
    chunks = list(record_chunks(iter(records), size))
    assert [record for chunk in chunks for record in chunk] == records
    assert all(sum(len(record.data) for record in chunk[:-1]) < size for chunk in chunks)
    assert all(sum(len(record.data) for record in chunk) >= size for chunk in chunks[:-1])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 7))
def test_sources_are_mixed_evenly(tmp_path_factory, counts, together):
    """Every source in its own order; and, open together, at any moment equal parts of each, to a document."""
    folder = tmp_path_factory.mktemp("mixed")
    for n, count in enumerate(counts):
        (folder / f"{n}.jsonl").write_text("".join(f'{{"text": "{number:02d}"}}\n' for number in range(count)))
    sources = find_sources([f"{folder}/*.jsonl"])
    records = list(mixed_records(sources, together=together))
    for source in sources:
        assert [record for record in records if record.path == source.path] == list(read_records(source))
    if together >= len(sources):
        for end in range(len(records)):
            seen = Counter(record.path for record in records[:end])
            parts = [(seen[source.path], count) for source, count in zip(sources, counts, strict=True)]
            assert max((given - 1) / count for given, count in parts) <= min(given / count for given, count in parts)


@pytest.fixture(scope="session")
def prepared_dataset(tmp_path_factory):
    """$TFDS_DATA_DIR with a dataset that TensorFlow had no part in."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    class TinyNews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="zh")]

        def _info(self):
            page = {"title": tfds.features.Text(), "notes": tfds.features.Sequence(tfds.features.Text())}
            features = {"content": tfds.features.Text(), "number": np.int64, "page": page}
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(300):
                page = {"title": f"题{number}", "notes": ["甲", "乙"]}
                yield number, {"content": f"第{number}篇。", "number": number, "page": page}

    TinyNews(data_dir=folder, file_format="array_record", config="zh").download_and_prepare()
    return folder


def test_tensorflow_datasets(prepared_dataset, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(prepared_dataset))  # read from TFDS_DATA_DIR at import
    texts = list(read_documents(["tfds:tiny_news/zh:content"]))
    assert sorted(texts) == sorted(f"第{number}篇。" for number in range(300))
    assert sorted(read_documents(["tfds:tiny_news/zh:page/title"])) == sorted(f"题{number}" for number in range(300))
    assert find_sources(["tfds:tiny_news/zh:content"])[0].size > 0
    for name, words in [
        ("tfds:tiny_news/zh:text", ["no field 'text'", "content, number, page"]),
        ("tfds:tiny_news/zh:page", ["'page' holds fields; name one of them: page/", "page/title"]),
        ("tfds:tiny_news/zh:page/body", ["no field 'body'; it has:", "title"]),
        ("tfds:tiny_news/zh:page/notes", ["'notes' holds a list; name a field with one text"]),
        ("tfds:tiny_news/zh:number/title", ["no field 'title'"]),
        ("tfds:no_such_dataset:text", ["not found", "tfds build"]),
        ("tfds:tiny_news", ["tfds:NAME:FIELD"]),
    ]:
        with pytest.raises(DataError) as caught:
            find_sources([name])
        assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(DataError, match="holds no string"):
        list(read_documents(["tfds:tiny_news/zh:number"]))
