"""How much anonymised text, and plain text of which kind, does it take to know what the numbers are? Methods x kinds of
plain text x sizes, on readable texts by private maps, so that what is right is known."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from pegasus_zh.text.tokenizers import SPECIALS
from pegasus_zh.text_encoder import TextEncoder
from retrieval.experiments.alignment_report import report
from retrieval.matching.alignment.methods import METHODS, Given, shares_by
from retrieval.matching.alignment.statistics import Statistics, of_numbers, of_plain
from retrieval.matching.alignment.table import Alignment, right
from retrieval.matching.alphabet import LEAST, count_numbers, make_alphabet
from retrieval.matching.anonymise import anonymised, private_map
from retrieval.matching.pairs import Wanted, read_rows
from retrieval.similarity import named
from retrieval.texts import all_texts
from retrieval.vectors.source import load_alone
from training.experiment.cells import digest_of_files, experiment, run_cells
from training.experiment.report import shown_settings
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.ranges import check_lists, check_ranges
from training.telling import tell

SAME = "same kind"  # plain texts that are set aside, and not anonymised then


@dataclass(frozen=True, kw_only=True)
class AlignmentGridConfig:
    """What does it take to know what the numbers are? The same command goes on with what is missing."""

    model: str
    """An encoder of plain text, whose vocabulary the numbers may be of."""
    texts: tuple[str, ...]
    """Readable texts, or pairs of them, that are anonymised."""
    plain: tuple[str, ...] = ()
    """NAME=FILE[,FILE...] or FILE: plain texts of other kinds."""
    field: str = "text"
    """The field or column with a plain text."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of those there are."""
    sizes: tuple[int, ...] = (1000, 3000, 10_000, 30_000, 0)
    """Anonymised texts; 0: all, but those that are set aside where they are the plain text."""
    same: float = 0.4
    """Share of the texts that are set aside as plain text of the same kind."""
    seeds: int = 1
    """Of the map, and of which texts are set aside."""
    least: int = LEAST
    """Occurrences of a number that is aligned."""
    folder: str = "runs/alignment-grid"
    """Where everything goes; report.html is the result."""

    def __post_init__(self):
        check_lists(self, texts=None, methods=METHODS)
        check_ranges(self, seeds=1, least=1, same=(0, 0.9))
        if not self.plain and not self.same:
            raise ValueError("plain is empty and same 0: there is no plain text to compare with")
        if len({*self.sizes}) < len(self.sizes) or min(self.sizes, default=-1) < 0:
            raise ValueError(f"sizes is {self.sizes}: numbers from 0, each once")


class Cell(NamedTuple):
    method: str
    kind: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}, {self.kind}, {self.size or 'all'}, {self.seed}"


class Secret(NamedTuple):
    """Texts in numbers, and which character each number is."""

    texts: list[str]  # those last that may be set aside
    key: dict[str, str]
    aside: list[str]  # readable


def alignment_grid(config: AlignmentGridConfig) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises DataError and ValueError."""
    source, folder = load_alone(config.model), disk_path(config.folder, "--folder")
    tokenizer = source.tokenizer
    kinds = dict(map(named, config.plain))
    if len(kinds) < len(config.plain) or SAME in kinds:
        raise DataError(f"plain {', '.join(config.plain)}: kinds are told apart by name; write NAME=… for some")
    texts = list(dict.fromkeys(_readable(config.texts)))
    secret = cache(partial(_secret, texts, config.same))
    plain = cache(lambda kind: of_plain(all_texts(kinds[kind].split(","), config.field), tokenizer))

    def tokens(kind: str, seed: int) -> Statistics:
        return of_plain(secret(seed).aside, tokenizer) if kind == SAME else plain(kind)

    every = product(config.methods, [*([SAME] if config.same else []), *kinds], config.sizes, range(config.seeds))
    cells = {cell.name: cell for cell in (Cell(*x) for x in every)}
    settings = {"texts": digest_of_files(config.texts), "model": source.fingerprint, "field": config.field}
    settings |= {f"plain {kind}": digest_of_files(paths.split(",")) for kind, paths in kinds.items()}
    with experiment(folder, settings | {"same": config.same, "least": config.least}):
        fits = lambda row: {*Cell._fields, "numbers", "plain", "seconds"} <= row.keys()  # noqa: E731
        made = run_cells(folder, cells, lambda cell: _run(config, source, secret(cell.seed), tokens, cell), fits=fits)
        tell(report(folder, made, shown_settings(config)))
        made.complete()


def _readable(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        for row in read_rows(path, Wanted(numbers=False, labels=False, single=True)):
            yield from (text for text in (row.a, row.b) if text) if row else ()


def _secret(texts: Sequence[str], share: float, seed: int) -> Secret:
    order = np.random.default_rng([seed, 1]).permutation(len(texts))
    aside = int(share * len(texts))
    of = private_map(texts, seed)
    hidden = [anonymised(texts[n], of) for n in [*order[aside:], *order[:aside]]]
    return Secret(hidden, {str(number): x for x, number in of.items()}, [texts[n] for n in order[:aside]])


def _run(
    config: AlignmentGridConfig,
    source: TextEncoder,
    secret: Secret,
    tokens: Callable[[str, int], Statistics],
    cell: Cell,
) -> dict[str, Any]:
    texts = secret.texts[: len(secret.texts) - len(secret.aside)] if cell.kind == SAME else secret.texts
    texts = texts[: cell.size or None]
    if len(texts) < cell.size:
        raise DataError(f"{cell.size:,} texts wanted, and there are {len(texts):,}; give smaller --sizes")
    alphabet = make_alphabet(count_numbers(texts), config.least)
    numbers = alphabet.vocabulary[len(SPECIALS) :]
    ours = of_numbers(texts, numbers)
    theirs, begin = tokens(cell.kind, cell.seed), time.perf_counter()
    shares = shares_by(cell.method, Given(ours, theirs, texts, alphabet, source), lambda turn, turns: None)
    seconds = time.perf_counter() - begin
    found = right(Alignment(numbers, source.tokenizer.pieces(), shares), ours.counts, secret.key)
    about = cell._asdict() | {"size": len(texts), "all": not cell.size, "numbers": len(numbers)}
    return about | {"plain": int(theirs.counts.sum()), "seconds": seconds} | found._asdict()
