"""What scripts.match_anonymised align does."""

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
from tqdm import tqdm

from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alignment.methods import METHODS, Given, shares_by
from retrieval.matching.alignment.statistics import of_numbers, of_plain
from retrieval.matching.alignment.table import Alignment, of_key, read_key, right
from retrieval.matching.alphabet import LEAST, count_numbers, make_alphabet
from retrieval.matching.matcher import is_matcher, read_reading
from retrieval.matching.pairs import anonymised_texts
from retrieval.matching.start import reading_numbers
from retrieval.texts import all_texts
from retrieval.vectors.source import load_alone
from rope.encoder.huggingface import write_encoder
from training.files.atomic import check_new
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import one_of
from training.metrics import progress_bar
from training.ranges import check_lists, check_ranges
from training.telling import tell

KEY = "key"  # a method


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Find which character each number may be, and write the encoder that reads numbers so."""

    model: str
    """An encoder of plain text: a run of scripts.pretrain_encoder; a fold of train, which has learned to match plain
    pairs; or a Hugging Face folder with a masked language model's head."""
    data: tuple[str, ...]
    """All anonymised texts there are: files of pairs, labelled or not, or of texts."""
    folder: str
    """Where the new encoder goes, a folder for transformers, and alignment.tsv."""
    plain: tuple[str, ...] = ()
    """Plain texts to compare with: .txt, .tsv, .jsonl …; the more of the same kind the better."""
    field: str = "text"
    """The field or column with a plain text."""
    counts: str = ""
    """Instead of plain texts, for --method rank: a JSON object of tokens and how often they come."""
    method: Annotated[str, one_of([*METHODS, KEY])] = "context"
    """rank: by frequency alone, as the post; transport: Gromov-Wasserstein of the commonest; context: by what stands
    beside; likelihood: that, and by what the model expects there; key: what --key says."""
    key: str = ""
    """number TAB character, where it is known: the alignment is scored by it."""
    least: int = LEAST
    """Occurrences of a number that has a row of its own."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, least=1)
        if bool(self.plain) == bool(self.counts) and self.method != KEY:
            raise ValueError("plain text is to be compared with: give --plain, or --counts with --method rank")
        if self.counts and self.method not in ("rank", KEY):
            raise ValueError(
                f"method is {self.method}, which counts do not serve: give texts by --plain, or --method rank"
            )
        if self.method == KEY and not self.key:
            raise ValueError("method is key: give --key FILE")


def align(config: AlignConfig) -> Alignment:
    """Writes `config.folder`, whole or not at all. Raises DataError."""
    check_new(disk_path(config.folder, "--folder"))
    source = load_alone(config.model)
    texts = list(anonymised_texts(config.data))
    counts = count_numbers(texts)
    alphabet = make_alphabet(counts, config.least)
    numbers = alphabet.vocabulary[len(SPECIALS) :]
    tell(
        f"{len(texts):,} texts of {counts.total():,} numbers, {len(counts):,} different; {len(numbers):,} come "
        f"{config.least} times or more, {sum(counts[x] for x in numbers) / counts.total():.1%} of the texts"
    )
    key = read_key(config.key) if config.key else {}
    if key and not {*numbers} & {*key}:
        raise DataError(f"{config.key}: none of the numbers is in it; give the key of these texts")
    if key:
        tell(f"{config.key}: has {sum(number in key for number in numbers) / len(numbers):.1%} of the numbers")
    found = aligned(config, source, texts, alphabet, key)
    weights = np.array([counts[x] for x in numbers], np.float64)
    matches = is_matcher(config.model)
    made = reading_numbers(source, alphabet, found.shares)

    def more(folder: Path) -> None:
        alphabet.save(folder)
        found.write(folder / "alignment.tsv", weights)
        if matches:
            read_reading(config.model).write(folder)

    write_encoder(config.folder, made.model, made.config, write_more=more)
    if key:
        score = right(found, weights, key)
        tell(f"right by {config.key}: {score.characters:.1%} of the numbers, {score.text:.1%} of the texts")
    best = zip(numbers[:20], found.best()[:20], found.shares[:20].max(1).tolist(), strict=True)
    shown = ", ".join(
        f"{number} {token} ({share:.2f})" if token else f"{number} unknown" for number, token, share in best
    )
    tell(f"the commonest seem to be {shown}")
    serves = "train, and for predict, since it has learned of plain pairs" if matches else "train"
    tell(f"{config.folder}: a --model for scripts.match_anonymised {serves}")
    tell(f"{disk_path(config.folder, '--folder') / 'alignment.tsv'}: which number is what")
    return found


def aligned(
    config: AlignConfig, source: TextEncoder, texts: Sequence[str], alphabet: PegasusTokenizer, key: dict[str, str]
) -> Alignment:
    """By `config.method`."""
    tokenizer = source.tokenizer
    if not isinstance(tokenizer, PegasusTokenizer):
        raise DataError(f"{config.model}: its tokenizer is no vocab.txt")
    tokens, numbers = _tokens(tokenizer), alphabet.vocabulary[len(SPECIALS) :]
    if config.method == KEY:
        return Alignment(numbers, tokens, of_key(numbers, tokens, key))
    ours, theirs = of_numbers(texts, numbers), of_plain(all_texts(config.plain, config.field), tokenizer)
    if config.counts:  # of neighbours it says nothing
        theirs = theirs._replace(counts=_counts(config.counts, tokenizer))
    with ExitStack() as stack:

        @cache
        def bar(turns: int) -> tqdm:  # of a method that has turns
            return stack.enter_context(closing(progress_bar(0, turns, "turn")))

        def turn(done: int, turns: int) -> None:
            bar(turns).update()

        return Alignment(numbers, tokens, shares_by(config.method, Given(ours, theirs, texts, alphabet, source), turn))


def _tokens(tokenizer: PegasusTokenizer) -> list[str]:
    """By id, with those that were added; "" for an id that is of none."""
    found = [*tokenizer.vocabulary, *[""] * (tokenizer.vocab_size - len(tokenizer.vocabulary))]
    for token in tokenizer.settings.added:
        found[token.id] = token.content
    return found


def _counts(path: str, tokenizer: PegasusTokenizer) -> np.ndarray:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        counts = np.array([float(found.get(token, 0)) for token in _tokens(tokenizer)])
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no JSON object of tokens and counts ({error}); write one") from None
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise DataError(f"{path}: a count is negative or not finite; mend it")
    counts[: len(SPECIALS)] = 0
    return counts
