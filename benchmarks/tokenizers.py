"""Lines a second of `PegasusTokenizer` against transformers' `BertTokenizer` fed by jieba's words, same vocabulary.

The reference is how T5-PEGASUS is tokenised with transformers: jieba (HMM off) cuts, a word in the vocabulary is one
id, any other word goes to `BertTokenizer`; once through its public method, once straight to its Rust core. All see the
same normalised text. Ids differ only where bert4keras, which we follow, differs from transformers: private-use
characters ([UNK], not dropped), words of 101 to 200 letters (not [UNK]). Needs the `parity` extra. From the root of the
repository:

    python -m benchmarks.tokenizers --data news.jsonl.gz pairs.tsv

Files are .txt, .tsv or .jsonl with a "text" field, plain or gzip. Without --tokenizer a vocabulary of 50,000 tokens is
trained from the same lines first. Each side has one core; the run that warms it up meets every word once, as the first
minutes of a corpus do. benchmarks/harness.py says how it is timed.
"""

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.harness import Clock, measure
from benchmarks.side import Run
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from pegasus_zh.text.wordpieces import normalise, words
from training.flags import FLAT

Ids = list[list[int]]  # of each line


@dataclass(frozen=True, kw_only=True)
class Config:
    data: tuple[Path, ...]
    tokenizer: Path | None = None
    """A vocab.txt or its folder."""
    lines: int = 4000
    """Of each file."""
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, cores=1))


def read_lines(path: Path) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"] if ".jsonl" in path.suffixes else line
            yield from filter(None, text.split("\n"))


def ours(vocabulary: list[str], lines: list[str]) -> Run:
    tokenizer = PegasusTokenizer(vocabulary)
    return lambda: [tokenizer.encode(line) for line in lines]


def theirs(vocabulary: list[str], lines: list[str], core: bool) -> Run:
    """core: words straight to the Rust that BertTokenizer calls."""
    import jieba
    import transformers

    jieba.setLogLevel(logging.ERROR)
    ids = {token: i for i, token in enumerate(vocabulary)}
    bert = transformers.BertTokenizer(vocab=ids, do_lower_case=True)
    rust = bert.backend_tokenizer
    encode_word: Callable[[str], list[int]] = (
        (lambda word: rust.encode(word, add_special_tokens=False).ids)
        if core
        else (lambda word: bert.encode(word, add_special_tokens=False))
    )

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for word in jieba.cut(normalise(text), HMM=False):
            if word in ids:
                found.append(ids[word])
            else:
                found.extend(encode_word(word))
        return found

    return lambda: [encode(line) for line in lines]


def other_words(lines: list[str]) -> int:
    """Lines that jieba cuts otherwise."""
    import jieba

    jieba.setLogLevel(logging.ERROR)
    return sum(words(line) != jieba.lcut(normalise(line), HMM=False) for line in lines)


def differing(ours: Ids, theirs: Ids) -> str:
    return f"{sum(map(list.__ne__, ours, theirs))} lines with other ids"


def main() -> None:
    config = tyro.cli(Config)
    lines = [line for path in config.data for line, _ in zip(read_lines(path), range(config.lines), strict=False)]
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    vocabulary = (
        load_tokenizer(config.tokenizer).vocabulary if config.tokenizer else train_pegasus_vocabulary(lines, 50_000)
    )
    print(f"{other_words(lines)} of {len(lines)} lines have other words than jieba's")
    given = vocabulary, lines
    measure(
        f"tokenizing {len(lines)} lines, {megabytes:.1f} MB of UTF-8, vocabulary of {len(vocabulary)}",
        {
            "ours": partial(ours, *given),
            "jieba + BertTokenizer": partial(theirs, *given, core=False),
            "jieba + its Rust core": partial(theirs, *given, core=True),
        },
        config.clock,
        work=len(lines),
        unit="line",
        check=differing,
    )


if __name__ == "__main__":
    main()
