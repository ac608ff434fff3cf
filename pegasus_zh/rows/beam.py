"""Preparing by Apache Beam, on as many machines as its runner has, to the same bytes as on one (see prepare).

    each source                -> its stamp, for a set that is new
    each source                -> the bytes of its records, and the marks of copies
    all of these, in one place -> of each record its place in the mixture, and its shard
    each source                -> its records of each shard
    each shard                 -> its files and its journal

A source is read as one, by whichever machine. What is in one place is a few bytes of each record. A killed pipeline
goes on with the shards that are missing.
"""

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import chain, count, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from pegasus_zh.rows.copies import Marks, copies_by
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig, Runner, shard_bytes
from pegasus_zh.rows.prepared_set import Contents, finished_shard, journal, total_contents
from pegasus_zh.rows.shards import ShardMaker
from pegasus_zh.text.documents import bytes_of, mixed, numbering
from pegasus_zh.text.records import Record
from pegasus_zh.text.sources import Source, read_records
from pegasus_zh.text.stamps import stamps
from training.files.atomic import read_json, write_json
from training.files.buckets import absolute, path_of
from training.files.errors import DataError

PLAN, STAMPS = ".plan.json", ".stamps.json"  # what a pipeline tells of the whole, until this process has read it
_BLOCK = 1 << 10  # records that are measured together
_AT_ONCE = 32  # journals that are read
_REFUSED = re.compile(r"(?:DataError|BadRecord): (.+)")

Numbered = tuple[int, Source]
Measured = tuple[Numbered, int, np.ndarray, list]  # source, number of the block, bytes of each record, mark of each
Planned = tuple[Source, np.ndarray, np.ndarray]  # of each of its records: the shard or -1, and the place in the mixture


class Beam(Runner):
    """By pipelines of these flags, such as --runner DataflowRunner and those of that runner.

    Raises DataError where Beam is not installed.
    """

    def __init__(self, flags: Sequence[str] = ()):
        if not find_spec("apache_beam"):
            raise DataError("Apache Beam is not here: it needs the extra beam: pip install 'pegasus-zh[beam]'")
        self._flags = list(flags)

    def stamps(self, sources: Sequence[Source], folder: Path) -> list[list]:
        import apache_beam as beam

        folder = absolute(folder)
        pipeline = self._pipeline()
        (
            pipeline
            | "sources" >> beam.Create([*enumerate(sources)])
            | "a source each" >> beam.Reshuffle()
            | "hash" >> beam.Map(_stamped)
            | "in one place" >> beam.GroupByKey()
            | "tell" >> beam.Map(_tell_stamps, folder=os.fspath(folder))
        )
        return _run(pipeline, folder / STAMPS)["sources"]

    def shards(self, make: ShardMaker, config: PrepareConfig, sources: Sequence[Source]) -> tuple[Contents, int]:
        import apache_beam as beam

        folder, examples = absolute(make.folder), make.examples
        place = os.fspath(folder)  # a path in a bucket is of no type that Beam knows, and each process opens it
        journals = sorted(int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.json"))
        pipeline = self._pipeline()
        finished = (
            pipeline
            | "journals" >> beam.Create(journals)
            | "to all machines" >> beam.Reshuffle()
            | "check" >> beam.Filter(_is_finished, folder=place)
        )
        (
            pipeline
            | "sources" >> beam.Create([*enumerate(sources)])
            | "a source each" >> beam.Reshuffle()
            | "measure" >> beam.FlatMap(_measured, examples=examples, config=config)
            | "in one place" >> beam.GroupByKey()
            | "plan" >> beam.FlatMap(_planned, beam.pvalue.AsList(finished), config=config, folder=place)
            | "a source each again" >> beam.Reshuffle()
            | "read" >> beam.FlatMap(_pieces, examples=examples, config=config)
            | "by shard" >> beam.GroupByKey()
            | "make" >> beam.Map(_make, make=replace(make, folder=Path()), folder=place)
        )
        plan = _run(pipeline, folder / PLAN)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            shards = [*pool.map(lambda index: Contents.of(read_json(journal(folder, index))), range(plan["shards"]))]
        contents = total_contents(shards, plan["copies"])
        return contents, contents.bytes - sum(shards[index].bytes for index in plan["finished"])

    def _pipeline(self) -> Any:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        return beam.Pipeline(options=PipelineOptions(self._flags))


def _run(pipeline: Any, told: Path) -> dict[str, Any]:
    """What the pipeline has told of the whole, in that file. Raises DataError for what a user can mend."""
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        if refused := _REFUSED.findall(f"{type(error).__name__}: {error}"):  # of a process elsewhere, as text alone
            raise DataError(refused[-1]) from error
        raise
    found = read_json(told)
    told.unlink()
    return found


def _stamped(numbered: Numbered) -> tuple[int, tuple[int, list]]:
    """All under the one key 0."""
    number, source = numbered
    return 0, (number, stamps([source])[0])


def _tell_stamps(stamped: tuple[int, Iterable[tuple[int, list]]], folder: str) -> None:
    in_order = [stamp for _, stamp in sorted(stamped[1], key=itemgetter(0))]
    write_json(path_of(folder, "--folder") / STAMPS, {"sources": in_order})


def _is_finished(index: int, folder: str) -> bool:
    return finished_shard(path_of(folder, "--folder"), index) is not None


def _measured(numbered: Numbered, examples: ExamplesConfig, config: PrepareConfig) -> Iterator[tuple[int, Measured]]:
    """All under the one key 0."""
    records, marks = _records(numbered[1], examples, config), Marks(examples, config)
    for number in count():
        block = [*islice(records, _BLOCK)]
        if not block and number:
            return
        sizes = np.fromiter(map(bytes_of, block), np.int64, len(block))
        yield 0, (numbered, number, sizes, [None] * len(block) if config.duplicates == "keep" else marks(0, block))


def _planned(
    measured: tuple[int, Iterable[Measured]], finished: list[int], config: PrepareConfig, folder: str
) -> Iterator[Planned]:
    """Of the sources that have records for a shard that is missing."""
    in_order = sorted(measured[1], key=itemgetter(0, 1))
    found = [
        (source, [(sizes, marks) for _, _, sizes, marks in blocks])
        for (_, source), blocks in groupby(in_order, itemgetter(0))
    ]
    sources = [source for source, _ in found]
    streams = [partial(_stream, blocks) for _, blocks in found]
    order = partial(mixed, [source.size for source in sources], streams, itemgetter(0))
    copies = frozenset[int]()
    if config.duplicates != "keep":
        copies = copies_by((mark for _, (_, mark) in order()), config)
    done, shard_of, last = set(finished), numbering(shard_bytes(config, sources)), -1
    shards, places = [array("i") for _ in sources], [array("q") for _ in sources]
    for place, (n, (size, _)) in enumerate(order()):
        shard = -1
        if place not in copies:
            shard = last = shard_of(size)
        shards[n].append(-1 if shard in done else shard)
        places[n].append(place)
    done &= {*range(last + 1)}
    plan = {"shards": last + 1, "copies": len(copies), "finished": sorted(done)}
    write_json(path_of(folder, "--folder") / PLAN, plan)
    for source, of_source, places_of_source in zip(sources, shards, places, strict=True):
        if max(of_source, default=-1) >= 0:
            yield source, np.array(of_source), np.array(places_of_source)


def _stream(blocks: list[tuple[np.ndarray, list]]) -> Iterator[tuple[int, Any]]:
    return chain.from_iterable(zip(sizes.tolist(), marks, strict=True) for sizes, marks in blocks)


def _pieces(
    planned: Planned, examples: ExamplesConfig, config: PrepareConfig
) -> Iterator[tuple[int, list[tuple[int, Record]]]]:
    """(shard, (place, record) of this source), one of each shard, as the shards of a source's records never fall."""
    source, shards, places = planned
    placed = zip(shards.tolist(), places.tolist(), _records(source, examples, config), strict=True)
    for shard, rows in groupby((row for row in placed if row[0] >= 0), itemgetter(0)):
        yield shard, [(place, record) for _, place, record in rows]


def _make(shard: tuple[int, Iterable[list[tuple[int, Record]]]], make: ShardMaker, folder: str) -> None:
    from apache_beam.metrics import Metrics

    index, pieces = shard
    make = replace(make, folder=path_of(folder, "--folder"))
    contents = make(index, [record for _, record in sorted(chain.from_iterable(pieces), key=itemgetter(0))])
    counts = {
        "documents": contents.documents,
        "without_examples": contents.without_examples,
        "skipped": sum(contents.skipped.values()),
        "rows": sum(file.rows for file in contents.files),
    }
    for name, found in counts.items():
        Metrics.counter("prepare", name).inc(found)


def _records(source: Source, examples: ExamplesConfig, config: PrepareConfig) -> Iterator[Record]:
    return read_records(source, config.field, examples.maker.reads.names(config))
