"""Rows of plain text for encoders: documents -> vocabulary -> prepared set -> batches of ids and segments."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
from jax.experimental import multihost_utils

from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.documents import CORPUS, OnBadRecord
from pegasus_zh.text.tokenizers import Tokenizer, keep_tokenizer, load_tokenizer
from pegasus_zh.text.vocabulary import make_tokenizer
from rope.encoder.mlm import Vocabulary
from rope.encoder.pretrain import Rows
from training.files.errors import DataError
from training.telling import Say, tell


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    data: tuple[str, ...] = (str(CORPUS / "train.jsonl"),)
    """Documents: files, quoted globs and tfds:NAME:FIELD; .txt, .jsonl (both also .gz) and .parquet. Default: the
    built-in corpus."""
    field: str = "text"
    """The JSON field or Parquet column with a document's text."""
    tokenizer: str = ""
    """A folder with vocab.txt, or such a file; by default a vocabulary is made from the documents."""
    tokenizer_kind: Literal["pegasus", "characters"] = "pegasus"
    """Which vocabulary is made: words (RoFormer, WoBERT), or characters (BERT, RoFormer-char)."""
    vocabulary: int = 4000
    """Entries of the vocabulary that is made, at most."""
    eval_fraction: float = 0.02
    """Documents held out for evaluation, by a hash of their text."""
    on_bad_record: OnBadRecord = "stop"
    """skip: leave bad documents out and count them by reason."""
    workers: int = 0
    """Processes that prepare; 0: one a core."""


def text_recipe(preset: str) -> TextConfig:
    """The defaults that go with a preset of rope.encoder.roformer:
    BERT's and RoFormer-char's vocabularies are of characters."""
    if "char" in preset or preset.startswith("bert"):
        return TextConfig(tokenizer_kind="characters", vocabulary=6000)
    return TextConfig()


def text_rows(config: TextConfig, length: int, folder: Path, say: Say = tell) -> Rows:
    """The documents in rows of `length`, prepared in `folder` by the first process if they are not there.

    Raises DataError for a tokenizer without [MASK], and as pegasus_zh.rows.prepare does.
    """
    place = folder / f"rows-{length}"
    made = _prepared(config, length, folder, place, say) if jax.process_index() == 0 else None
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("rows prepared")
    rows = made or open_rows(place)
    tokenizer = load_tokenizer(place / "tokenizer")
    return Rows(
        length=length,
        vocabulary=vocabulary_of(tokenizer),
        fingerprint=rows.manifest.fingerprint,
        tokenizer=tokenizer.fingerprint,
        train=partial(train_batches, rows.train),
        heldout=partial(eval_batches, rows.heldout) if rows.heldout else None,
    )


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What masking knows of a tokenizer. Raises DataError for one without [MASK]."""
    if tokenizer.mask_id is None:
        raise DataError(f"{tokenizer.kind} has no [MASK]: use a vocab.txt, or --tokenizer-kind pegasus or characters")
    return Vocabulary(tokenizer.vocab_size, tokenizer.mask_id, tokenizer.specials)


def _prepared(config: TextConfig, length: int, folder: Path, place: Path, say: Say) -> PreparedRows:
    examples = ExamplesConfig(selector="text", max_source=length, row_source=length)
    documents = PrepareConfig(
        data=config.data,
        eval_fraction=config.eval_fraction,
        workers=config.workers,
        field=config.field,
        on_bad_record=config.on_bad_record,
    )
    if config.tokenizer:
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        tokenizer = make_tokenizer(
            config.tokenizer_kind,
            config.vocabulary,
            config.data,
            folder / "tokenizer",
            field=config.field,
            on_bad_record=config.on_bad_record,
            say=say,
        )
    vocabulary_of(tokenizer)  # before anything is prepared
    if config.tokenizer:
        keep_tokenizer(tokenizer, folder / "tokenizer")
    return prepare(examples, documents, tokenizer, place)
