import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegasus_zh.text.sentences import group_sentences, split_sentences
from tests.pegasus_zh.rows import reference

odd_characters = "天地ab1 \n\t\r\x00\u3000\u2028\ufeff\ud800😀。！？；…!?.;,”』」’）)\"'"
odd_texts = st.one_of(st.text(max_size=200), st.text(odd_characters, max_size=200))


@given(st.text("天a。\n \u3000！", max_size=120), st.integers(1, 34))
def test_faithful_split_is_the_reference(text: str, max_length: int) -> None:
    assert split_sentences(text, faithful=True, max_length=max_length) == reference.segment(text, max_length)


@given(odd_texts, st.booleans(), st.integers(1, 40))
def test_only_whitespace_at_the_edges_is_lost(text: str, faithful: bool, max_length: int) -> None:
    position = 0
    for sentence in split_sentences(text, faithful=faithful, max_length=max_length):
        found = text.index(sentence, position)
        assert text[position:found].strip() == ""
        assert sentence == sentence.strip()
        position = found + len(sentence)
    assert text[position:].strip() == ""


@given(odd_texts, st.integers(1, 40))
def test_empty_sentences_are_dropped(text: str, max_length: int) -> None:
    assert "" not in split_sentences(text, faithful=False, max_length=max_length)


def test_faithful_merges_up_to_31_characters_and_an_end() -> None:
    a, b, c = "一" * 15 + "。", "二" * 15 + "。", "三" * 40 + "。"
    assert split_sentences(a + b + c, faithful=True) == [a + b, c]
    assert split_sentences("一" + a + b + c, faithful=True) == ["一" + a, b, c]
    # A last piece without an end is merged to 31 characters, not 32.
    assert split_sentences(c + a + "二" * 15, faithful=True) == [c, a + "二" * 15]
    assert split_sentences(c + a + "二" * 16, faithful=True) == [c, a, "二" * 16]
    assert split_sentences("！".join(["四" * 20] * 3), faithful=True) == ["！".join(["四" * 20] * 3)]


def test_faithful_prefers_lines_and_keeps_the_empty_sentence_of_a_blank_line() -> None:
    long = "一" * 31 + "。"
    assert split_sentences(f"题\n{long}{long}", faithful=True) == ["题", long, long]
    assert split_sentences(f"题\n目\n{long}", faithful=True) == ["题\n目", long]
    assert split_sentences(f"{long}\n  \n{long}", faithful=True) == [long, "", long]
    assert split_sentences(f"{long}\n  \n{long}", faithful=False) == [long, long]
    assert split_sentences("", faithful=True) == [""]
    assert split_sentences(" \n", faithful=False) == []


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("你好！他说。对吗？是；嗯…好", ["！", "。", "？", "；", "…"]),
        ("他说：“走吧！”然后走了。", ["！”", "。"]),
        ("「好。」『真的？』（是的！）他说：‘“行。”’(好！)", ["。」", "？』", "！）", "。”’", "！)"]),
        ("怎么？！什么……。好", ["？！", "……。"]),
        ("Hello world! 你好吗? 好!!! 是", ["!", "?", "!!!"]),
        ("提出了一种方法.结果表明有效. 结论 可行.", [".", ".", "."]),
        ("差异有意义(P<0.05).结论可达80%.所以“好”.", [".", ".", "."]),
        ("圆周率是3.14吗", []),
        ("见e.g.例子和U.S.政府的file.txt与文件.txt", []),
        ("1.总则 2.分则 记住....参与 支持.NET的", []),
        ("见https://example.com/a?b=1!c和x!=y", []),
        ("a;b,c，d、e：f", []),
    ],
)
def test_sentence_ends(text: str, ends: list[str]) -> None:
    """With a maximum of one character nothing is merged, so that every end shows."""
    sentences = split_sentences(text, faithful=False, max_length=1)
    assert len(sentences) == len(ends) + (not ends or not text.endswith(ends[-1]))
    for sentence, end in zip(sentences, ends, strict=False):
        assert sentence.endswith(end)


def test_an_abstract_with_ascii_full_stops() -> None:
    sentences = [
        "针对现有方法精度不高的问题,提出了一种基于图的新方法.",
        "在3.5万条数据上的实验表明,该方法的精度提高了2.1%.",
        "该方法简单可行.",
    ]
    abstract = "".join(sentences)
    assert split_sentences(abstract, faithful=True) == [abstract]
    assert split_sentences(abstract, faithful=False) == sentences


def test_a_long_run_of_ends_takes_no_quadratic_time() -> None:
    assert split_sentences("。" * 300_000, faithful=False) == ["。" * 300_000]


@given(st.lists(st.text("天地", max_size=12), max_size=40), st.integers(12, 40), st.integers(1, 4))
def test_groups_are_the_reference(sentences: list[str], max_characters: int, min_sentences: int) -> None:
    groups = list(group_sentences(iter(sentences), max_characters=max_characters, min_sentences=min_sentences))
    assert groups == reference.group(sentences, max_characters, min_sentences)


@given(st.lists(st.text("天地", max_size=30), max_size=20), st.integers(1, 12))
def test_a_sentence_longer_than_a_group_is_cut(sentences: list[str], longest: int) -> None:
    """Into the fewest, of which a group has no more than three times the longest; nothing of it is lost."""
    groups = list(group_sentences(sentences, max_characters=longest, min_sentences=1))
    found = [piece for group in groups for piece in group]
    assert "".join(found) == "".join(sentences) and all(len(piece) <= longest for piece in found)
    assert len(found) == sum(max(-(-len(sentence) // longest), 1) for sentence in sentences)
    assert all(sum(map(len, group)) <= longest for group in groups)


def test_groups_have_768_characters_and_three_sentences() -> None:
    assert [len(group) for group in group_sentences(["字" * 32] * 51)] == [24, 24, 3]
    assert [len(group) for group in group_sentences(["字" * 32] * 50)] == [24, 24]  # the last two are dropped
    assert [len(group) for group in group_sentences(["字" * 700] * 7)] == [3, 3]
    assert list(group_sentences([])) == list(group_sentences(["一。", "二。"])) == []
