"""How fast raw documents become packed rows: MB of UTF-8 text a second, in one process and on all cores.

    python -m benchmarks.prepare --data 'corpus/*.jsonl.gz' [--tokenizer FOLDER] [--profile]

--profile shows where the time goes instead, stage by stage, by the process's own time. benchmarks/harness.py says how
the rest is timed; its processor seconds are those of all processes.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packing import choose_row_shape, encode_row, pack, padding
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.rows.prepared_set import id_dtype
from pegasus_zh.rows.pseudo_summary import pseudo_summary
from pegasus_zh.rows.shards import lengths_of
from pegasus_zh.text.documents import parse_records, read_documents
from pegasus_zh.text.sentences import group_sentences, split_sentences
from pegasus_zh.text.sources import find_sources, read_records
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, Tokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.telling import silence

PROFILED = 3000  # documents of each file


def main(
    examples: ExamplesConfig,
    config: PrepareConfig,
    clock: Clock = Clock(repeats=3),  # noqa: B008
    tokenizer: Path | None = None,
    profile: bool = False,
) -> None:
    """Measures prepare on each file of --data.

    tokenizer: default: a vocabulary of 50,000 words of the documents themselves. profile: stage by stage, on one core.
    """
    loaded = load_tokenizer(tokenizer) if tokenizer else _tokenizer(config)
    files = [replace(config, data=(source.path,)) for source in find_sources(config.data)]
    if profile:
        for file in files:
            _profile(examples, file, loaded)
    else:
        in_turn(*(partial(_measure, examples, file, loaded, clock) for file in files))


def _tokenizer(config: PrepareConfig) -> Tokenizer:
    texts = (text for path in config.data for text in islice(read_documents([path], field=config.field), 1000))
    return PegasusTokenizer(train_pegasus_vocabulary(texts, 50_000))


def preparing(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer) -> Run:
    def run() -> float:
        with TemporaryDirectory() as folder, silence():
            return prepare(examples, config, tokenizer, folder).manifest.contents.bytes / 1e6

    return run


def _measure(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer, clock: Clock) -> None:
    megabytes = sum(len(text.encode()) for text in read_documents(config.data, field=config.field)) / 1e6
    workers = {"one process": 1, "a process a core": config.workers}
    measure(
        f"prepare, {Path(config.data[0]).name}, {megabytes:.1f} MB",
        {name: partial(preparing, examples, replace(config, workers=n), tokenizer) for name, n in workers.items()},
        clock,
        work=megabytes,
        unit="MB",
        check=np.testing.assert_equal,
    )


def _profile(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Tokenizer) -> None:
    """The stages of prepare over the same documents, one after the other."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[name] = time.process_time() - start

    dtype = id_dtype(tokenizer.vocab_size)
    with stage("read"):
        (source,) = find_sources(config.data)
        records = list(islice(read_records(source, config.field), PROFILED))
    with stage("parse"):
        texts = list(parse_records(records, examples.maker.reads.of(config), "skip", Counter()))
    with stage("split"):
        most = int(examples.characters * (examples.max_source + examples.max_target))
        split = (split_sentences(text, faithful=examples.faithful) for text in texts)
        groups = [group for sentences in split for group in group_sentences(sentences, max_characters=most)]
    with stage("select"):
        chosen = [
            pseudo_summary(group, selector=examples.selector, ratio=examples.ratio, unit=examples.unit)
            for group in groups
        ]
    with stage("tokenize"):
        pairs = []
        for group, sides in zip(groups, chosen, strict=True):
            source, target = (tokenizer.encode("".join([group[i] for i in side])) for side in sides)
            source, target = (
                tokenizer.frame_source(source, examples.max_source),
                tokenizer.frame_target(target, examples.max_target),
            )
            pairs.append((np.array(source, dtype), np.array(target, dtype)))
    lengths = lengths_of(pairs)
    row = choose_row_shape(lengths[:1200], examples.longest, [*examples.row.values()])
    with stage("pack"):
        rows = pack(lengths, row)
    with stage("write"), TemporaryDirectory() as folder:
        writer = ArrayRecordWriter(f"{folder}/rows", "group_size:1,uncompressed")
        for members in rows:
            writer.write(encode_row([pairs[i] for i in members], dtype))
        writer.close()

    megabytes, total = sum(len(text.encode()) for text in texts) / 1e6, sum(seconds.values())
    print(
        f"{config.data[0]}: {megabytes:.1f} MB, {len(pairs)} pairs, {megabytes / total:.2f} MB/s on one core (cpu); ",
        end="",
    )
    shares = [f"{share:.1%}" for share in padding(lengths, len(rows), row)]
    print(f"rows of {row[0]} + {row[1]}, padding: source {shares[0]}, target {shares[1]}, all {shares[2]}")
    for name, spent in seconds.items():
        print(f"  {name:10}{1e3 * spent / megabytes:8.1f} ms/MB{spent / total:8.1%}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
