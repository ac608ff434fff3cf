"""What tokenizing loses is counted to the id, and told."""

from collections import Counter

import numpy as np
import pytest

from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.losses import Losses, counting
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import SPECIALS, train_sentencepiece

TOKENIZER = PegasusTokenizer([*SPECIALS, *"今天气很好，。"])
TEXTS = ["今天天气很好。", "臺灣，臺", "😀🎉", "", "今天"]


def test_counts() -> None:
    tokenizer, lost = counting(TOKENIZER)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == TOKENIZER.encode(text)
        assert tokenizer.frame_source(ids, 6) == TOKENIZER.frame_source(ids, 6)
        assert tokenizer.frame_target(ids, 5) == TOKENIZER.frame_target(ids, 5)
        assert tokenizer.decode(ids) == TOKENIZER.decode(ids)
    encoded, found = [TOKENIZER.encode(text) for text in TEXTS], lost()
    assert found.ids == sum(map(len, encoded)) and found.unknown == sum(ids.count(100) for ids in encoded)
    assert found.cut_sources == sum(len(ids) > 4 for ids in encoded) == 1
    assert found.cut_targets == sum(len(ids) > 3 for ids in encoded) == 2
    assert found.strangers == 1 and found.commonest() == {"臺": 2, "灣": 1, "🎉": 1, "😀": 1}
    twice = found + found
    assert (twice.unknown, twice.characters) == (2 * found.unknown, {c: 2 * n for c, n in found.characters.items()})
    assert tokenizer.vocabulary is TOKENIZER.vocabulary  # of one kind alone


def test_a_sentencepiece_model_of_bytes_loses_nothing() -> None:
    tokenizer, lost = counting(SentencePieceTokenizer(train_sentencepiece(["今天天气很好，我们去公园。"] * 30, 300)))
    ids = tokenizer.encode("臺灣")
    assert lost().unknown == 0 < lost().ids
    assert len(tokenizer.frame_source(ids, len(ids) + 1)) == len(ids) + 1 and lost().cut_sources == 0
    assert len(tokenizer.frame_source(ids, len(ids))) == len(ids) and lost().cut_sources == 1


def test_more_than_a_twentieth_is_warned_of(said: list[str]) -> None:
    Losses(ids=1000, unknown=50, cut_sources=3, characters={"臺": 50}).report("a.tsv")
    assert said == ["a.tsv: 5.00% of 1,000 ids unknown; 3 texts cut"]
    said.clear()
    Losses(ids=1000, unknown=51, strangers=2, cut_targets=1, characters={"灣": 20, "臺": 31}).report(
        "a.tsv", targets=True
    )
    assert said[0] == "a.tsv: 5.10% of 1,000 ids unknown, 2 texts of nothing else; 0 sources and 1 targets cut"
    assert said[1].startswith(
        "warning: 5.1% of the ids are unknown, most often 臺 (31), 灣 (20): the vocabulary is not"
    )
    assert "--data a.jsonl 'b/*.txt' --vocabulary 50000" in said[1] and "\n" not in said[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_preparing_tells_it_of_all_shards(tmp_path, said: list[str], workers: int) -> None:
    pairs = [("今天臺" * 9, "好" * (4 if n % 3 else 9)) for n in range(40)]
    (tmp_path / "a.tsv").write_text("".join(f"{reference}\t{source}\n" for source, reference in pairs), "utf-8")
    config = PrepareConfig(data=(str(tmp_path / "a.tsv"),), shard_megabytes=0.001, workers=workers)
    examples = ExamplesConfig(selector="pairs", max_source=20, max_target=8)
    rows = prepare(examples, config, TOKENIZER, tmp_path / "set")
    found, lengths = rows.manifest.contents.losses, Counter(len(reference) for _, reference in pairs)
    assert len(rows.manifest.contents.files) > 1
    assert (found.cut_sources, found.cut_targets) == (40, lengths[9]) and found.characters == {"臺": 360}
    assert "% of 1,310 ids unknown; 40 sources and 14 targets cut" in said[-2]
    assert said[-1].startswith("warning: 27.5% of the ids are unknown, most often 臺 (360)")
    batch = rows.train.batch(range(len(rows.train)))
    ends = Counter((batch["labels"] if "labels" in batch else batch["target"])[batch["target_segments"] > 0].tolist())
    assert ends[TOKENIZER.eos_id] == lengths[4]  # what is cut has no end
    assert np.all(rows.manifest.contents.losses.ids == found.ids)
