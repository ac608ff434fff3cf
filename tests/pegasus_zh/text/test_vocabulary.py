"""Vocabularies: the layout, the ranking, coverage, determinism and the bounds of memory."""

import itertools
import os
import random
import string
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text import vocabulary
from pegasus_zh.text.tokenizers import PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import make_tokenizer, train_pegasus_vocabulary, train_sentencepiece
from pegasus_zh.text.wordpieces import normalise, split_plain
from training.files.errors import DataError

LEAST = 106 + 32 + 36 + 36
CLAUSES = """今天天气很好 我们去北京大学学习机器翻译 春天的公园里开满了花 他昨天买了三本关于历史的书
火车晚上八点到达上海 这家餐厅的面条又便宜又好吃 研究人员提出了一种新的训练方法 下雨的时候记得带上雨伞
数据处理程序用Python编写 训练training 需要显卡GPU和时间 请在2024年之前完成 他说“明天见”，然后走了
价格是12.5元（含税） 医生建议每天走路 孩子们在操场上踢足球 河水流过古老的石桥 翻译translation 模型model在改进""".split()


def corpus(characters: int, seed: int = 0) -> list[str]:
    dice, texts, total = random.Random(seed), [], 0
    while total < characters:
        texts.append("，".join(dice.choices(CLAUSES, k=dice.randrange(2, 9))) + "。")
        total += len(texts[-1])
    return texts


TEXTS = corpus(20_000)


def unknown_share(tokens: list[str], texts: list[str]) -> float:
    tokenizer = PegasusTokenizer(tokens)
    unknown = sum(tokenizer.encode(text).count(tokenizer.unk_id) for text in texts)
    return unknown / sum(len("".join(split_plain(normalise(text)))) for text in texts)


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, 300, 350])
def test_vocabulary_has_berts_layout_and_exactly_the_size(size):
    tokens = train_pegasus_vocabulary(TEXTS, size)
    assert len(tokens) == len(set(tokens)) == size
    assert tokens[:2] == ["[PAD]", "[unused1]"]
    assert tokens[99:106] == ["[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]
    assert set(tokens[106:LEAST]) >= {"!", "~", "0", "9", "a", "z", "##0", "##9", "##a", "##z"}
    PegasusTokenizer(tokens)


def test_a_large_size_gives_fewer_tokens_and_leaves_nothing_unknown():
    tokens = train_pegasus_vocabulary(TEXTS, 50_000)
    assert LEAST < len(tokens) < 2000
    assert unknown_share(tokens, TEXTS) == 0
    assert {"明天", "机器翻译", "天", "，", "“", "python", "gpu", "2024"} <= set(tokens)


def test_characters_come_first_up_to_the_coverage():
    rare = "蜘蛛葡萄琵琶蝴蝶骆驼玫瑰珊瑚琥珀蝙蝠芙蓉" * 2  # 40 characters among 100,000 are under 0.05 %
    texts = [*corpus(100_000), rare]
    common = set(normalise("".join(texts[:-1]))) - set(string.printable)
    tokens = train_pegasus_vocabulary(texts, LEAST + len(common) + 5)
    assert common == set(tokens[LEAST:-5])
    assert all(len(token) > 1 for token in tokens[-5:])  # words, far more frequent than the rare characters
    assert 0 < unknown_share(tokens, texts) < 0.0005
    assert {"蜘蛛", *rare} <= set(train_pegasus_vocabulary(texts, 5000))


def test_words_are_ranked_by_count_then_by_string():
    texts = ["历史 "] * 3 + ["公园 "] * 3 + ["上海 "] * 4 + ["北京 "] * 2
    order = ["上海", "公园", "历史", "北京"]  # 公 U+516C is before 历 U+5386
    tokens = train_pegasus_vocabulary(texts, 1000)
    assert [token for token in tokens if token in order] == order
    assert train_pegasus_vocabulary(texts, LEAST + 8 + 2)[-2:] == order[:2]  # after the eight characters


def test_latin_words_become_whole_tokens_or_shared_pieces():
    once = ["".join(letters) + "ing" for letters in itertools.product("bdfgk", "aeiou", "lmnrs")]
    tokens = train_pegasus_vocabulary([" ".join(once)] + ["training 2024"] * 200, LEAST + 3)
    assert tokens[LEAST:-1] == ["2024", "training"]
    assert tokens[-1].startswith("##") and tokens[-1].endswith("ing")  # of 125 words, each met once


@given(st.text([*string.printable], max_size=40))
def test_ascii_text_is_never_unknown(text):
    tokens = train_pegasus_vocabulary([], LEAST)
    assert PegasusTokenizer(tokens).encode(text).count(100) == 0


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=5))
def test_no_character_of_the_texts_is_unknown_where_all_fit(texts):
    assert unknown_share(train_pegasus_vocabulary(texts, 5000), [*texts, "x"]) == 0


def test_vocabulary_depends_on_the_texts_alone():
    expected = train_pegasus_vocabulary(TEXTS, 380)
    assert train_pegasus_vocabulary(reversed(TEXTS), 380) == expected
    assert train_pegasus_vocabulary(iter(TEXTS), 380) == expected  # one pass is enough
    script = (
        "import sys; from pegasus_zh.text.vocabulary import train_pegasus_vocabulary\n"
        "texts = sys.stdin.buffer.read().decode().split('\\n')\n"
        "sys.stdout.buffer.write('\\n'.join(train_pegasus_vocabulary(texts, 380)).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    other = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(TEXTS).encode(),
        capture_output=True,
        check=True,
        env=environment,
    )
    assert other.stdout.decode().split("\n") == expected


def test_counting_keeps_the_frequent_words_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(vocabulary, "_MAX_DISTINCT_WORDS", 300)
    numbers = [f"{n} 今天天气很好" for n in range(100_000, 101_000)]
    counts = vocabulary._count_words(numbers, 10**9)
    assert len(counts) <= 300 and counts["今天天气"] + counts["今天"] == 1000
    assert vocabulary._count_words(["今天"] * 10, 4) == {"今天": 2}


def test_long_codes_are_no_tokens():
    assert max(map(len, train_pegasus_vocabulary(["x" * 201, "y" * 200] * 9, 5000))) == 200


def test_too_small_a_size_is_refused():
    with pytest.raises(DataError, match=f"size {LEAST - 1} is too small.* need {LEAST}"):
        train_pegasus_vocabulary(TEXTS, LEAST - 1)


def test_sentencepiece_has_mt5s_ids_and_is_deterministic_and_quiet(capfd):
    model = train_sentencepiece(TEXTS, 430)
    tokenizer = SentencePieceTokenizer(model)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.start_id) == (0, 1, 2, 0)
    assert tokenizer.vocab_size == 430
    assert train_sentencepiece(iter(TEXTS), 430) == model
    assert tokenizer.unk_id not in tokenizer.encode("龘😀")  # as bytes
    assert capfd.readouterr() == ("", "")


def test_sentencepiece_leaves_characters_as_they_are():
    """By NFKC ，！？：；（）would come back half-width, and a perfect summary would not score as one."""
    texts = ["你好，世界！真的吗？对：是；（三）～ＡＢＣ①㎡é", "第一行\n第二行"]
    tokenizer = SentencePieceTokenizer(train_sentencepiece([*TEXTS, *texts * 20], 600))
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_sentencepiece_of_little_text_has_fewer_pieces():
    assert 256 < SentencePieceTokenizer(train_sentencepiece(["今天天气很好"], 5000)).vocab_size < 300


def test_sentencepiece_sees_all_of_a_long_line():
    line = "".join(c * 3 for c in map(chr, range(0x4E00, 0x4E00 + 1500)))  # 13,500 bytes, over sentencepiece's limit
    tokenizer = SentencePieceTokenizer(train_sentencepiece([line], 3000))
    assert len(tokenizer.encode(line[-3:])) <= 4  # characters, where nine bytes would stand for unseen ones


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [(TEXTS, 270, "size 270.*smaller"), ([], 500, "no text"), ([" \n"], 500, "no text")],
)
def test_sentencepiece_that_cannot_be_trained_is_one_clear_line(texts, size, message):
    with pytest.raises(DataError, match=message) as caught:
        train_sentencepiece(texts, size)
    assert "\n" not in str(caught.value) and "INTERNAL" not in str(caught.value)


@given(st.lists(st.text("ab", max_size=9), max_size=60), st.integers(1, 100))
def test_sample_is_every_nth_line_within_the_bound(lines, bound):
    numbered = [f"{line}{n}" for n, line in enumerate(lines)]
    sample = vocabulary._sample(iter(numbered), bound)
    strides = [numbered[:: 2**k] for k in range(7)]
    assert sample in strides or (sample == [] == numbered)
    assert sum(map(len, sample)) <= bound or len(sample) == 1
    finer = strides[strides.index(sample) - 1] if sample and strides.index(sample) else []
    assert not finer or sum(map(len, finer)) > bound  # no coarser than it must be


def test_sampled_sentencepiece_still_knows_the_text():
    model = train_sentencepiece(TEXTS, 430, max_characters=4000)
    assert model != train_sentencepiece(TEXTS, 430)
    pieces = Counter(SentencePieceTokenizer(model).encode("".join(TEXTS[:50])))
    assert sum(count for i, count in pieces.items() if 3 <= i < 259) < 0.01 * pieces.total()  # hardly any bytes


def test_a_vocabulary_is_of_its_documents_and_settings(tmp_path):
    documents = [tmp_path / f"{n}.txt" for n in range(2)]
    for number, path in enumerate(documents):
        path.write_text(f"今天天气很好{number}。", encoding="utf-8")
    make = partial(make_tokenizer, "pegasus", 300, folder=tmp_path / "tokenizer")
    made = make([str(documents[0])])
    assert make([str(documents[0])]).fingerprint == made.fingerprint
    os.utime(documents[0], (1, 1))
    assert make([str(documents[0])]).fingerprint == made.fingerprint  # touched, and the same
    remedy = f"give another --folder, or delete {tmp_path / 'tokenizer'}, with the rows"
    with pytest.raises(DataError, match=rf"made from other documents \(0\.txt, not 1\.txt\): {remedy}"):
        make([str(documents[1])])
    with pytest.raises(
        DataError, match="made with kind pegasus, vocabulary 300, .* not kind characters, vocabulary 300"
    ):
        make_tokenizer("characters", 300, [str(documents[0])], tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "made.json").write_text("{")
    with pytest.raises(DataError, match=r"made\.json: not JSON"):
        make([str(documents[0])])
