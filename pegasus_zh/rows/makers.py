"""Where examples come from: a table of makers, each one name, one function and the settings that it reads.

An example is a tuple of ids, an array for each side of its maker: (source, target) for an encoder-decoder, (ids,) for
an encoder.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pegasus_zh.rows.packing import IDS, SOURCE, TARGET, Example, Side
from pegasus_zh.rows.prepared_set import id_dtype
from pegasus_zh.rows.pseudo_summary import SELECTORS, Selector, Unit, pseudo_summary
from pegasus_zh.rows.span_corruption import corrupt
from pegasus_zh.text.readers import DOCUMENTS, PAIRS, Reader
from pegasus_zh.text.sentences import group_sentences, split_sentences
from pegasus_zh.text.tokenizers import Tokenizer
from training.files.errors import DataError
from training.ranges import check_ranges

PAIR = (SOURCE, TARGET)


@dataclass(frozen=True)
class Maker:
    """One way to make examples of texts."""

    make: Callable[..., list[list[Example]]]  # (texts, tokenizer, **settings) -> the examples of each text
    settings: tuple[str, ...]  # what else `make` takes, by name: fields of a config
    sides: tuple[Side, ...] = PAIR  # of an example, in order
    reads: Reader = DOCUMENTS  # what a text is: a document, or (source, reference)
    needs: str = "three sentences"  # what a text must have for an example
    kinds: tuple[str, ...] = ()  # of tokenizers that will do; (): any
    reason: str = ""  # why no other will, and what will
    positions: int = 0  # of a row for each example in it, but for the first four; 0: any

    def examples(self, texts: Sequence, tokenizer: Tokenizer, config: Any) -> list[list[Example]]:
        """The examples of each text, by the settings that are fields of `config`."""
        return self.make(texts, tokenizer, **{name: getattr(config, name) for name in self.settings})

    def most(self, row: int) -> int | None:
        """Examples that may share a row of so many positions; None: as many as fit."""
        return max(row // self.positions, 4) if self.positions else None


def pseudo_summaries(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    selector: str,
    unit: Unit,
    faithful: bool,
    ratio: float,
    kept: float,
    characters: float,
    max_source: int,
    max_target: int,
    selector_seed: int,
) -> list[list[Example]]:
    """For each text (source, target) of its groups of sentences; none below three sentences.

    Stage by stage over many texts: each stage then finds its tables in the processor's cache, a fifth faster than text
    by text.
    """
    groups = _groups(texts, faithful, characters * (max_source + max_target))
    rule = partial(pseudo_summary, selector=selector, ratio=ratio, kept=kept, unit=unit, seed=selector_seed)
    chosen = [(n, group, rule(group)) for n, group in groups]
    pairs = [(n, ["".join([group[i] for i in side]) for side in pair]) for n, group, pair in chosen]
    examples: list[list[Example]] = [[] for _ in texts]
    for n, pair in pairs:
        source, target = map(tokenizer.encode, pair)
        if source and target:  # text of nothing but control characters gives no ids
            examples[n].append(frame_pair(source, target, tokenizer, max_source, max_target))
    return examples


def span_pairs(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    faithful: bool,
    characters: float,
    max_source: int,
    max_target: int,
    selector_seed: int,
) -> list[list[Example]]:
    """For each text (source, target) of its groups of sentences by T5's objective, none of them cut."""
    examples: list[list[Example]] = [[] for _ in texts]
    # Of so many ids source and target, sentinels included, are not cut.
    longest = int(min((max_source - 2) / 0.9, (max_target - 3) / 0.2))
    for n, group in _groups(texts, faithful, characters * (max_source + max_target)):
        text = "".join(group)
        ids = tokenizer.encode(text)[:longest]
        source, target = corrupt(ids, np.random.default_rng([selector_seed, zlib.crc32(text.encode())]))
        if target:
            examples[n].append(frame_pair(source, target, tokenizer, max_source, max_target))
    return examples


def _groups(texts: Sequence[str], faithful: bool, characters: float) -> list[tuple[int, list[str]]]:
    """(number of the text, sentences of at most so many characters)."""
    split = [split_sentences(text, faithful=faithful) for text in texts]
    return [
        (n, group) for n, text in enumerate(split) for group in group_sentences(text, max_characters=int(characters))
    ]


def pieces(texts: Sequence[str], tokenizer: Tokenizer, *, max_source: int) -> list[list[Example]]:
    """For each text its ids in pieces as long as a source."""
    dtype, room = id_dtype(tokenizer.vocab_size), max_source - 2
    encoded = map(tokenizer.encode, texts)
    cut = ([ids[start : start + room] for start in range(0, len(ids), room)] for ids in encoded)
    return [[(np.array(tokenizer.frame_source(piece, max_source), dtype),) for piece in text] for text in cut]


def given_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, max_source: int, max_target: int
) -> list[list[Example]]:
    """For each (source, reference) that one example."""
    encoded = (map(tokenizer.encode, pair) for pair in pairs)
    return [[frame_pair(source, target, tokenizer, max_source, max_target)] for source, target in encoded]


def frame_pair(source: list[int], target: list[int], tokenizer: Tokenizer, max_source: int, max_target: int) -> Example:
    """Between the special tokens, cut to so many ids."""
    framed = (tokenizer.frame_source(source, max_source), tokenizer.frame_target(target, max_target))
    dtype = id_dtype(tokenizer.vocab_size)
    return tuple(np.fromiter(ids, dtype, len(ids)) for ids in framed)


_LENGTHS = ("max_source", "max_target")
_GROUPS = ("faithful", "characters", *_LENGTHS, "selector_seed")


def _of_selector(name: str) -> Maker:
    return Maker(partial(pseudo_summaries, selector=name), (*_GROUPS, "unit", "ratio", "kept"))


MAKERS: dict[str, Maker] = {
    **{name: _of_selector(name) for name in SELECTORS},
    "span-corruption": Maker(
        span_pairs, _GROUPS, kinds=("pegasus",), reason="marks by [unused1], [unused2], …: use a vocab.txt"
    ),
    # A piece for eight positions at most: a row closes before dozens of very short texts share it.
    "text": Maker(pieces, ("max_source",), sides=(IDS,), needs="text", positions=8),
    "pairs": Maker(given_pairs, _LENGTHS, reads=PAIRS, needs="a source and a reference"),
}


def making_pairs() -> list[str]:
    """The makers of what T5 trains on."""
    return [name for name, maker in MAKERS.items() if maker.sides == PAIR]


def pairs_of_documents() -> list[str]:
    """Those of them that need no more than documents."""
    return [name for name in making_pairs() if MAKERS[name].reads is DOCUMENTS]


def _sides() -> dict[str, Side]:
    return {side.name: side for maker in MAKERS.values() for side in maker.sides}


def known_sides(row: Mapping[str, int]) -> dict[Side, int]:
    """A row's positions by side instead of its name. Raises DataError for a side that no maker here has."""
    known = _sides()
    if new := [name for name in row if name not in known]:
        raise DataError(f"rows have a side {new[0]!r}: add the maker that made them first (makers.add_maker)")
    return {known[name]: positions for name, positions in row.items()}


def add_maker(name: str, maker: Maker) -> None:
    """A maker of one's own: from now on --selector may be `name`, in this process.

    Where several processes prepare, the script that starts them adds it outside of `if __name__ == "__main__":`. Raises
    ValueError for a name that is taken, also of a side that differs: prepared sets are known by them.
    """
    if name in MAKERS:
        raise ValueError(f"selector {name!r} is there already, and prepared sets are known by the name: give another")
    known = _sides()
    if other := [side.name for side in maker.sides if known.get(side.name, side) != side]:
        raise ValueError(f"side {other[0]!r} is there already, and is not the same: give another name")
    MAKERS[name] = maker


def add_selector(name: str, selector: Selector) -> None:
    """A rule of one's own for pseudo-summaries, as add_maker adds a maker."""
    add_maker(name, _of_selector(name))
    SELECTORS[name] = selector


@dataclass(frozen=True, kw_only=True)
class ExamplesConfig:
    """Which examples are made of documents, and of what length. The defaults are T5-PEGASUS's."""

    selector: str = "lcs"
    """Rule of the pseudo-summary: lcs, random, lead, ind-orig, ind-uniq, seq-orig, seq-uniq or rouge-l; or
    span-corruption, as T5; or text: no pairs, the text in pieces; or pairs: of files of pairs."""
    unit: Unit = "character"
    """What the selector compares."""
    faithful: bool = False
    """Cut sentences exactly as T5-PEGASUS did: at line ends and "。" alone."""
    ratio: float = 0.25
    """Sentences become target until it has more than this times the source's characters."""
    kept: float = 0.0
    """Share of the target's sentences that stay in the source too, so that copying is learned; PEGASUS has 0.2."""
    characters: float = 1.5
    """Of a group of sentences, for each id that source and target may have: T5-PEGASUS's, which goes with 50,000 words.
    With a vocabulary of 4,000, of 1.1 characters an id, most targets are then cut; 0.6 cuts few."""
    max_source: int = 384
    """Ids of a source, special tokens included."""
    max_target: int = 128
    """Ids of a target, start and end included."""
    row_source: int = 0
    """Encoder positions of a packed row; 0: chosen by a sample of the documents."""
    row_target: int = 0
    """Decoder positions of a packed row; 0: chosen by a sample of the documents."""
    selector_seed: int = 0
    """Of random and span-corruption."""

    def __post_init__(self):
        lengths, rows = dict.fromkeys(_LENGTHS, (4, 1 << 15)), dict.fromkeys(("row_source", "row_target"), (0, 1 << 16))
        check_ranges(self, ratio=0, kept=0, characters=0.1, selector_seed=(0, 1 << 32), **lengths, **rows)
        if self.kept > 1:
            raise ValueError(f"kept is {self.kept}: a share, at most 1")
        if self.selector not in MAKERS:
            raise DataError(f"selector is {self.selector!r}: it must be one of {', '.join(MAKERS)}")
        if 0 < self.row_source < self.max_source or 0 < self.row_target < self.max_target:
            raise DataError(
                f"a row must hold the longest pair, so --row-source {self.row_source} may not be below --max-source "
                f"{self.max_source}, nor --row-target {self.row_target} below --max-target {self.max_target}: raise "
                "the one or lower the other (0: chosen by the documents)"
            )

    @property
    def maker(self) -> Maker:
        return MAKERS[self.selector]

    def make(self, texts: Sequence[str], tokenizer: Tokenizer) -> list[list[Example]]:
        """The examples of each text."""
        return self.maker.examples(texts, tokenizer, self)

    @property
    def row(self) -> dict[str, int]:
        """Positions of each side of a packed row; 0: not given."""
        return {side.name: getattr(self, side.row) for side in self.maker.sides}

    def of_row(self, row: Mapping[str, int]) -> "ExamplesConfig":
        """The same examples in rows of another set's shape."""
        given: dict[str, Any] = {side.row: row[side.name] for side in self.maker.sides}
        return replace(self, **given)

    @property
    def longest(self) -> list[int]:
        """Ids of an example on each side, at most; the start of a decoder's inputs is none of its labels."""
        return [getattr(self, side.longest) - bool(side.inputs) for side in self.maker.sides]
