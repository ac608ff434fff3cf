"""Lines a second of `PegasusTokenizer` against transformers' `BertTokenizer` fed by jieba's words, same vocabulary.

The reference is how T5-PEGASUS is tokenised with transformers: jieba (HMM off) cuts, a word in the vocabulary is one
id, any other word goes to `BertTokenizer`; once through its public method, once straight to its Rust core. All see the
same normalised text. Runs are interleaved, so that a busy machine slows all. Ids differ only where bert4keras, which we
follow, differs from transformers: private-use characters ([UNK], not dropped), words of 101 to 200 letters (not [UNK]).
Needs the `parity` extra. From the root of the repository:

    python -m benchmarks.tokenizers --data news.jsonl.gz pairs.tsv

Files are .txt, .tsv or .jsonl with a "text" field, plain or gzip. Without --tokenizer a vocabulary of 50,000 tokens is
trained from the same lines first.
"""

import argparse
import gzip
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jieba
import transformers

from pegasus_zh.text.tokenizers import PegasusTokenizer, load_tokenizer, normalise, words
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary


def read_lines(path: Path) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"] if ".jsonl" in path.suffixes else line
            yield from filter(None, text.split("\n"))


Encoder = Callable[[str], list[int]]


def reference_encoders(vocabulary: list[str]) -> dict[str, Encoder]:
    ids = {token: i for i, token in enumerate(vocabulary)}
    bert = transformers.BertTokenizer(vocab=ids, do_lower_case=True)
    core = bert.backend_tokenizer

    def encode(text: str, encode_word: Encoder) -> list[int]:
        found: list[int] = []
        for word in jieba.cut(normalise(text), HMM=False):
            if word in ids:
                found.append(ids[word])
            else:
                found.extend(encode_word(word))
        return found

    return {
        "jieba + BertTokenizer": lambda text: encode(text, lambda word: bert.encode(word, add_special_tokens=False)),
        "jieba + its Rust core": lambda text: encode(
            text, lambda word: core.encode(word, add_special_tokens=False).ids
        ),
    }


def seconds(encode: Encoder, lines: list[str]) -> float:
    start = time.perf_counter()
    for line in lines:
        encode(line)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--tokenizer", type=Path, help="a vocab.txt or its folder")
    parser.add_argument("--lines", type=int, default=4000, help="lines used of each file")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    lines = [line for path in options.data for line, _ in zip(read_lines(path), range(options.lines), strict=False)]
    megabytes = sum(len(line.encode()) for line in lines) / 1e6
    if options.tokenizer:
        tokenizer = load_tokenizer(options.tokenizer)
    else:
        tokenizer = PegasusTokenizer(train_pegasus_vocabulary(lines, 50_000))
    jieba.setLogLevel(logging.ERROR)
    encoders = {"PegasusTokenizer": tokenizer.encode, **reference_encoders(tokenizer.vocabulary)}

    seconds(tokenizer.encode, lines)  # meets every word once, as the first minutes of a corpus do
    rows = [[seconds(encode, lines) for encode in encoders.values()] for _ in range(options.repeats)]
    other = sum(words(line) != jieba.lcut(normalise(line), HMM=False) for line in lines)
    print(f"{len(lines)} lines, {megabytes:.1f} MB of UTF-8, {other} of them with other words than jieba's")
    print(f"vocabulary of {tokenizer.vocab_size}, medians of {options.repeats}:")
    for column, (name, encode) in enumerate(encoders.items()):
        time_taken = statistics.median(row[column] for row in rows)
        ratio = statistics.median(row[column] / row[0] for row in rows)
        different = sum(encode(line) != tokenizer.encode(line) for line in lines)
        print(
            f"{name:22}{len(lines) / time_taken:9.0f} lines/s {time_taken / megabytes * 1e3:7.0f} ms/MB"
            f"  {ratio:5.1f} times our time  {different} lines with other ids"
        )


if __name__ == "__main__":
    main()
