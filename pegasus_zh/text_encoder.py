"""An encoder with its tokenizer: pretrained on documents, read from a run or a folder of transformers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np

from pegasus_zh.rows.plain_text import TextConfig, text_recipe, text_rows, vocabulary_of
from pegasus_zh.text.model_tokenizer import load_model_tokenizer, tokenizer_folder
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import PegasusTokenizer, Tokenizer
from rope.encoder import pretrain as encoder
from rope.encoder import roformer
from rope.encoder.load import load_encoder
from rope.encoder.mlm import Vocabulary
from rope.encoder.pretrain import EncoderConfig, pretrain_encoder
from rope.encoder.roformer import RoFormer, RoFormerConfig
from rope.layers.kernels import Implementation
from training.files.buckets import path_of
from training.files.errors import DataError
from training.files.weights import fingerprint
from training.flags import FLAT, parse_preset
from training.launch import LaunchConfig
from training.loop import LoopConfig, Trained
from training.program import Program


class TextEncoder(NamedTuple):
    """An encoder and the tokenizer that makes its ids."""

    model: RoFormer  # of float32 NumPy arrays
    config: RoFormerConfig
    tokenizer: Tokenizer
    pooling: str | None = None  # what its vectors were trained with, if that is known
    attention: Implementation = "auto"  # what computed it in training: of the fingerprint alone

    @property
    def fingerprint(self) -> str:
        """Of all that a text's vector depends on; with the config as the run saved it, as indexes have it."""
        saved = replace(self.config, attention=self.attention)
        about = (fingerprint(self.model), saved, self.tokenizer.fingerprint)
        return hashlib.sha256(repr(about).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Pretrain RoFormer (or BERT: --positions learned) on Chinese text by masked language model.

    Without --data it trains on the corpus that comes with the project. The same command resumes a run. The defaults are
    those of the preset: --preset NAME --help shows them.
    """

    text: Annotated[TextConfig, FLAT] = field(default_factory=TextConfig)
    """Documents and tokenizer."""
    encoder: Annotated[EncoderConfig, FLAT] = field(default_factory=EncoderConfig)
    """What trains, and where it goes."""

    @property
    def launch(self) -> LaunchConfig:
        return self.encoder.launch


def defaults(preset: str) -> TextEncoderConfig:
    """What goes with a preset."""
    return TextEncoderConfig(text=text_recipe(preset), encoder=encoder.defaults(preset))


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.pretrain_encoder") -> TextEncoderConfig:
    """The command line's config: the flags given, and for the rest what goes with the --preset given."""
    return parse_preset(TextEncoderConfig, roformer.PRESETS, defaults, "tiny", args=args, prog=prog)


def pretrain(config: TextEncoderConfig) -> Trained:
    """Runs, or resumes, the pretraining of an encoder on documents.
    Raises DataError, as `text_rows` and the training do."""
    text, where = config.text, config.encoder
    if where.start and text.tokens.tokenizer:
        raise DataError("--start has its own tokenizer: leave out --tokenizer")
    if where.start:
        load_tokenizer(tokenizer_folder(where.start))  # before anything is made
        text = replace(text, tokens=replace(text.tokens, tokenizer=str(tokenizer_folder(where.start))))
    length, folder = where.recipe.length, path_of(where.folder, "--folder")
    return pretrain_encoder(where, lambda: text_rows(text, length, folder))[0]


def plan_of(config: TextEncoderConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: a vocabulary as large as may be, where it is made."""
    made = Vocabulary(config.text.tokens.vocabulary, PegasusTokenizer.mask_id, PegasusTokenizer.specials)
    given = config.text.tokens.tokenizer
    return encoder.plan_of(config.encoder, vocabulary_of(load_tokenizer(given)) if given else made)


def load_text_encoder(path: Path | str, *, step: int | None = None) -> TextEncoder:
    """As rope.encoder.load.load_encoder, with the tokenizer. Raises DataError for one that does not fit, too."""
    model, config, of_tokenizer, pooling, attention = load_encoder(path, step=step)
    tokenizer, where = load_model_tokenizer(path, of_tokenizer), tokenizer_folder(path)
    if tokenizer.mask_id is None:
        raise DataError(f"{where}: a {tokenizer.kind} model; an encoder's tokenizer is its vocab.txt: put that there")
    if tokenizer.vocab_size > config.vocabulary:
        raise DataError(
            f"{where}: {tokenizer.vocab_size:,} tokens, and the embedding has {config.vocabulary:,} rows; put the "
            "vocab.txt there that belongs to the model"
        )
    return TextEncoder(model, config, tokenizer, pooling, attention)


def rows_of_texts(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, segments) int32 [texts, T] for rope.encoder.roformer.encode: a row a text between [CLS] and [SEP], its end
    left out beyond `length`, T of the longest. Raises ValueError for no text, and for fewer than 3 positions."""
    if length < 3 or not texts:
        raise ValueError(f"{len(texts)} texts in rows of {length}: one text or more, and 3 positions, are needed")
    framed = [tokenizer.frame_source(tokenizer.encode(text), length) for text in texts]
    ids = np.full((len(framed), max(map(len, framed))), tokenizer.pad_id, np.int32)
    for row, found in zip(ids, framed, strict=True):
        row[: len(found)] = found
    return ids, (np.arange(ids.shape[1]) < np.array([[len(found)] for found in framed])).astype(np.int32)
