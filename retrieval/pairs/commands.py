"""Files to files of pairs: what scripts.make_pairs runs."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

from pegasus_zh.text.documents import OnBadRecord, read_documents
from pegasus_zh.text.sources import find_sources, read_records
from retrieval.pairs.groups import answered, merged, read_answers, read_groups
from retrieval.pairs.instructed import Instructed, instructed
from retrieval.pairs.passages import Overlap, sentence_pairs
from retrieval.pairs.tally import Pair, Tally, check_out, example, finish, pairs_of, sound
from retrieval.pairs.templates import read_templates
from retrieval.texts import read_columns, scored
from training.flags import FLAT
from training.metrics import progress_bar
from training.ranges import check_lists, check_ranges


@dataclass(frozen=True, kw_only=True)
class GroupsConfig:
    """Synonymous questions: groups that share one are merged."""

    data: tuple[str, ...]
    """.jsonl or .json of {text, synonyms: [...]}; .tsv, .csv or .jsonl whose columns are all alike; also .gz, .zst."""
    out: str
    """.tsv: pairs; .jsonl: groups, {text, synonyms: [...]}."""
    labelled: bool = False
    """The last column is a label: pairs of 1 are merged, those of 0 join nothing."""
    pairs_a_group: int = 10
    """Of a .tsv: pairs of a group at most, drawn at random; 0: all."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, pairs_a_group=0, seed=0)


def groups(config: GroupsConfig) -> int:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out, tally = check_out(config.out, config.data), Tally(", ".join(config.data))
    found = merged(chain.from_iterable(read_groups(path, config.labelled) for path in config.data), tally)
    return _finish(out, found, config.pairs_a_group, config.seed, tally)


@dataclass(frozen=True, kw_only=True)
class AnswersConfig:
    """Answers to one question."""

    data: tuple[str, ...]
    """.tsv of question TAB answer, or .jsonl, .json or .csv with the two fields; also .gz, .zst."""
    out: str
    """.tsv: pairs; .jsonl: groups, {text, synonyms: [...]}."""
    question_field: str = "question"
    """The field or column with a question."""
    answer_field: str = "answer"
    """The field or column with an answer to it."""
    pairs_a_question: int = 10
    """Of a .tsv: pairs of a question's answers at most, drawn at random; 0: all."""
    seed: int = 0
    """Of the draws."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, pairs_a_question=0, seed=0)


def answers(config: AnswersConfig) -> int:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out, tally = check_out(config.out, config.data), Tally(", ".join(config.data))
    rows = (read_answers(path, config.question_field, config.answer_field) for path in config.data)
    return _finish(out, answered(chain.from_iterable(rows), tally), config.pairs_a_question, config.seed, tally)


@dataclass(frozen=True, kw_only=True)
class PassagesConfig:
    """Sentences of one document that share much, and not nearly all."""

    data: tuple[str, ...]
    """Documents: files, quoted globs and tfds:NAME:FIELD; .txt, .jsonl, .json (also .gz, .zst) and .parquet."""
    out: str
    """.tsv: pairs; .jsonl: groups of two, {text, synonyms: [...]}."""
    field: str = "text"
    """The JSON field or Parquet column with a document's text."""
    on_bad_record: OnBadRecord = "stop"
    """skip: leave bad documents out and count them by reason."""
    overlap: Annotated[Overlap, FLAT] = dataclasses.field(default_factory=Overlap)
    """Which sentences are a pair."""

    def __post_init__(self):
        check_lists(self, data=None)


def passages(config: PassagesConfig) -> int:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    sources = find_sources(config.data)
    out, tally = check_out(config.out, [source.path for source in sources]), Tally()
    count = sum(1 for source in sources for _ in read_records(source, config.field))
    skipped: Counter[str] = Counter()
    documents = read_documents(config.data, field=config.field, on_bad_record=config.on_bad_record, skipped=skipped)
    bar, found = progress_bar(0, count, "document"), list[Pair]()
    for pairs in sentence_pairs(documents, config.overlap, tally):
        found += pairs
        bar.update()
    bar.close()
    tally.read = f"{', '.join(config.data)}: {count:,} documents"
    tally.dropped.update({f"documents ({reason})": number for reason, number in skipped.items()})
    return finish(out, list(sound(found, tally)), tally)


@dataclass(frozen=True, kw_only=True)
class InstructConfig:
    """Labelled pairs as examples of the instructions of `write`, for scripts.finetune to teach a model."""

    data: tuple[str, ...]
    """Text TAB text TAB score, or .jsonl, .json or .csv of such; also .gz, .zst. Each file's scores are scaled by its
    own least and largest one."""
    out: str
    """.jsonl of {source, reference}: an instruction about a text, and the other text."""
    templates: str = ""
    """A JSON file of instructions, as retrieval/pairs/templates.json, which is the default."""

    def __post_init__(self):
        check_lists(self, data=None)


def instruct(config: InstructConfig) -> int:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out, templates = check_out(config.out, config.data, (".jsonl",)), read_templates(config.templates)
    found, tally = list[Instructed](), Tally()
    for path in config.data:
        pairs = [scored(row) for row in read_columns(path)]
        tally.read += f"{'; ' * bool(tally.read)}{path}: {len(pairs):,} rows"
        found += instructed(pairs, templates, tally)
    return finish(out, found, tally, "examples", example)


def _finish(out: Path, found: list[list[str]], most: int, seed: int, tally: Tally) -> int:
    if out.suffix == ".jsonl":
        return finish(out, found, tally, "groups")
    draw = random.Random(seed)
    pairs: Iterable[Pair] = (pair for group in found for pair in pairs_of(group, most, draw))
    return finish(out, list(sound(pairs, tally)), tally)
