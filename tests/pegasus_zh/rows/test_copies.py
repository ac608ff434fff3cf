"""Preparing without copies: counted, told, and the same bytes from any number of workers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pegasus_zh
from pegasus_zh.rows import copies
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.errors import DataError

LINES = (Path(pegasus_zh.__file__).parent / "corpus" / "train.jsonl").read_text().splitlines()[:30]
TEXTS = [json.loads(line)["text"] for line in LINES]
EXAMPLES = ExamplesConfig(max_source=128, max_target=48, row_source=256, row_target=96)
TOKENIZER = PegasusTokenizer(train_pegasus_vocabulary(TEXTS, 1000))


def made(folder: Path, name: str, texts: list[str], **flags) -> PreparedRows:
    data = folder / "documents.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = PrepareConfig(data=(str(data),), shard_megabytes=0.01, **{"workers": 1} | flags)
    return prepare(EXAMPLES, config, TOKENIZER, folder / name)


def test_copies_are_left_out_and_counted(tmp_path):
    alone = made(tmp_path, "alone", TEXTS)
    texts = [*TEXTS, *TEXTS[:5], *(text + "。\n" for text in TEXTS[5:9]), "短", "短"]
    exact = made(tmp_path, "exact", texts, duplicates="exact")
    near = made(tmp_path, "near", texts, duplicates="near")
    kept = [rows.manifest.contents for rows in (alone, exact, near)]
    assert [contents.copies for contents in kept] == [0, 6, 10]
    assert [contents.documents for contents in kept] == [len(TEXTS), len(texts) - 6, len(texts) - 10]
    assert "10 left out as copies of others" in near.manifest.summary()


def test_bytes_are_the_same_from_any_number_of_workers(tmp_path):
    texts = [*TEXTS, *TEXTS[:5]]
    one, two = (made(tmp_path, f"by-{n}", texts, duplicates="near", workers=n) for n in (1, 2))
    assert one.manifest.contents == two.manifest.contents  # with the checksums of all files


def test_another_way_is_another_set(tmp_path):
    made(tmp_path, "set", TEXTS, duplicates="near")
    for flags in ({}, {"duplicates": "exact"}, {"duplicates": "near", "duplicate_threshold": 0.9}):
        with pytest.raises(DataError, match="holds a set made with duplicate"):
            made(tmp_path, "set", TEXTS, **flags)


def test_a_set_of_an_earlier_version_kept_them(tmp_path):
    made(tmp_path, "set", TEXTS)
    settings = json.loads((tmp_path / "set" / "settings.json").read_text())
    earlier = {
        name: value for name, value in settings.items() if not name.startswith(("duplicate", "kept", "characters"))
    }
    (tmp_path / "set" / "settings.json").write_text(json.dumps(earlier))
    made(tmp_path, "set", TEXTS)
    with pytest.raises(DataError, match="duplicates 'keep'"):
        made(tmp_path, "set", TEXTS, duplicates="exact")


def test_near_copies_need_an_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^duplicates is 'near': it needs the extra near: pip install"):
        made(tmp_path, "set", TEXTS, duplicates="near")
    made(tmp_path, "set", TEXTS, duplicates="exact")


def test_pairs_are_copies_by_both_of_their_texts(tmp_path):
    """Not by what these are one after the other."""
    lines = ["今天天气很\t好。", "今天天气\t很好。", "今天天气很\t好 。", "今天\t天气很好。"]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines * 5))
    config = PrepareConfig(data=(str(tmp_path / "pairs.tsv"),), workers=1, duplicates="exact", eval_fraction=0)
    found = prepare(replace(EXAMPLES, selector="pairs"), config, TOKENIZER, tmp_path / "set").manifest.contents
    assert (found.documents, found.copies) == (3, 17)
