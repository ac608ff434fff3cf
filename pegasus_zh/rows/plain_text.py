"""Rows of plain text for encoders: documents -> vocabulary -> prepared set -> batches of ids and segments."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from pegasus_zh.rows.dataset import eval_batches, train_batches
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packed_rows import PreparedRows, open_rows
from pegasus_zh.rows.prepare import PrepareConfig, prepare
from pegasus_zh.text.documents import CORPUS, DocumentsConfig
from pegasus_zh.text.tokenizer_files import keep_tokenizer, load_tokenizer
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.text.vocabulary import TokenizerConfig
from rope.encoder.mlm import Vocabulary
from rope.encoder.pretrain import Rows
from training.files.errors import DataError
from training.flags import FLAT
from training.launch import by_first

_NO_MASK = "{} has no [MASK]: use a vocab.txt, or --tokenizer-kind pegasus or characters"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    documents: Annotated[DocumentsConfig, FLAT] = field(
        default_factory=lambda: DocumentsConfig(data=(str(CORPUS / "train.jsonl"),), eval_fraction=0.02)
    )
    """Those of --data; by default the built-in corpus."""
    tokens: Annotated[TokenizerConfig, FLAT] = field(default_factory=lambda: TokenizerConfig(vocabulary=4000))
    """What they are cut into."""

    def __post_init__(self):
        if self.tokens.tokenizer_kind == "sentencepiece":  # before one is made
            raise DataError(_NO_MASK.format("sentencepiece"))


def text_recipe(preset: str) -> TextConfig:
    """The defaults that go with a preset of rope.encoder.roformer:
    BERT's and RoFormer-char's vocabularies are of characters."""
    if "char" in preset or preset.startswith("bert"):
        return TextConfig(tokens=TokenizerConfig(tokenizer_kind="characters", vocabulary=6000))
    return TextConfig()


def text_rows(config: TextConfig, length: int, folder: Path) -> Rows:
    """The documents in rows of `length`, prepared in `folder` by the first process if they are not there.

    Raises DataError for a tokenizer without [MASK], and as pegasus_zh.rows.prepare does.
    """
    place = folder / f"rows-{length}"
    rows = by_first(lambda: _prepared(config, length, folder, place), lambda: open_rows(place), what="rows prepared")
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
        raise DataError(_NO_MASK.format(tokenizer.kind))
    return Vocabulary(tokenizer.vocab_size, tokenizer.mask_id, tokenizer.specials)


def _prepared(config: TextConfig, length: int, folder: Path, place: Path) -> PreparedRows:
    examples = ExamplesConfig(selector="text", max_source=length, row_source=length)
    tokenizer = config.tokens.of(config.documents, folder / "tokenizer")
    vocabulary_of(tokenizer)  # before anything is prepared
    if config.tokens.tokenizer:
        keep_tokenizer(tokenizer, folder / "tokenizer")
    return prepare(examples, PrepareConfig(**vars(config.documents)), tokenizer, place)
