"""mT5 with the vocabulary of T5-PEGASUS: how Su Jianlin's model began (https://kexue.fm/archives/8209).

The rows of the embedding, and of the head, are taken from mT5's wherever it has the token, so that pretraining goes on
from mT5 instead of from nothing. Ids change: the special tokens stay first, then come the tokens that mT5 has, in the
order of the vocabulary, and those that it lacks go to the end.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from pegasus_zh.t5.huggingface import check_free, write_folder
from pegasus_zh.t5.load import load
from pegasus_zh.t5.mt5 import MT5, with_vocabulary
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizer_files import load_tokenizer
from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer, SentencePieceTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from training.files.buckets import path_of
from training.files.errors import DataError
from training.partition import Dtype
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class TransplantConfig:
    """Give an mT5 a vocabulary of Chinese words, as T5-PEGASUS was begun, and write it as a folder for transformers."""

    model: str
    """A folder of mT5 that you have fetched: config.json, weights and spiece.model, or Google's checkpoint."""
    folder: str
    """The new folder."""
    tokenizer: str = ""
    """A vocab.txt or its folder; by default a vocabulary is made from --data."""
    data: tuple[str, ...] = ()
    """Documents to make it from: files, quoted globs and tfds:NAME:FIELD."""
    field: str = "text"
    """The JSON field or Parquet column with a document's text."""
    vocabulary: int = 50_000
    """Entries of the vocabulary that is made, at most."""
    dtype: Dtype = "float32"
    """Of the weights."""
    overwrite: bool = False
    """Replace an earlier export in the same place."""


@dataclass(frozen=True)
class Transplant:
    """Which of mT5's rows make the new ones. New ids: first one for each of `kept`, then one for each of `means`."""

    vocabulary: list[str]  # in the order of the new ids
    kept: list[int]  # mT5's id behind each
    means: list[list[int]]  # the new ids, all of `kept`, whose mean each is; empty where the token has no piece
    approximate: int  # of `means`, how many have a piece that is not among `kept`


def transplant(config: TransplantConfig) -> Path:
    """Writes the new model's folder, whole or not at all, and returns it. Raises DataError."""
    out = path_of(config.folder, "--folder")
    check_free(out, config.overwrite)
    if bool(config.tokenizer) == bool(config.data):
        raise DataError("give the vocabulary by --tokenizer, or documents to make one from by --data")
    loaded = load(config.model)
    tell(loaded.source)
    if not isinstance(loaded.tokenizer, SentencePieceTokenizer):
        raise DataError(
            f"{config.model}: has a vocab.txt already; a transplant begins with an mT5 and its spiece.model"
        )
    plan = make_plan(_vocabulary(config), loaded.tokenizer)
    new = with_vocabulary(loaded.config, len(plan.vocabulary))
    tokenizer = PegasusTokenizer(plan.vocabulary)
    write_folder(
        out,
        move_rows(loaded.model, plan, new.vocabulary),
        new,
        tokenizer,
        dtype=config.dtype,
        overwrite=config.overwrite,
    )
    tell(
        f"{out}: {new.vocabulary:,} rows: {len(SPECIALS)} special ones from <unk>, {len(plan.kept) - len(SPECIALS):,} "
        f"from mT5's own pieces, {len(plan.means):,} means of pieces ({plan.approximate:,} with <unk> for some), "
        f"{new.vocabulary - len(plan.vocabulary)} of padding"
    )
    return out


def make_plan(vocabulary: list[str], pieces: SentencePieceTokenizer) -> Transplant:
    """T5-PEGASUS's rules. A wordpiece inside a word (##) is the piece without mark, else with the mark of a word's
    beginning; any other token is the piece with that mark, else without. A token that is neither is what mT5 would cut
    it into; a piece of that which no token is (the special tokens' <unk>, then) counts as new id 0.
    """
    kept, missing = [pieces.unk_id] * len(SPECIALS), []
    found = vocabulary[: len(SPECIALS)]
    for token in vocabulary[len(SPECIALS) :]:
        spellings = (token[2:], "▁" + token) if token.startswith("##") else ("▁" + token, token)
        ids = [i for i in map(pieces.piece_id, spellings) if i != pieces.unk_id]
        if ids:
            kept.append(ids[0])
            found.append(token)
        else:
            missing.append(token)
    new_ids = {piece: new for new, piece in enumerate(kept)}  # the last of several
    cuts = list(map(pieces.encode, missing))
    means = [[new_ids.get(piece, 0) for piece in cut] for cut in cuts]
    approximate = sum(any(new_ids.get(piece, 0) < len(SPECIALS) for piece in cut) or not cut for cut in cuts)
    return Transplant(found + missing, kept, means, approximate)


def move_rows(model: MT5, plan: Transplant, rows: int) -> MT5:
    """The model with its embedding and head for the new vocabulary, of `rows` rows; those beyond it are <unk>'s too."""

    def moved(old: np.ndarray) -> np.ndarray:
        new = np.empty((rows, old.shape[1]), old.dtype)
        kept, end = len(plan.kept), len(plan.vocabulary)
        new[:kept] = old[plan.kept]
        for i, parts in enumerate(plan.means, start=kept):
            new[i] = new[parts].mean(0) if parts else new[0]
        new[end:] = new[0]
        return new

    embedding, head = jax.tree.map(moved, (model.embedding, model.head.T))
    return replace(model, embedding=embedding, head=head.T)


def _vocabulary(config: TransplantConfig) -> list[str]:
    if not config.tokenizer:
        tell(f"making a vocabulary of at most {config.vocabulary:,} entries from the documents")
        return train_pegasus_vocabulary(read_documents(config.data, field=config.field, mixed=True), config.vocabulary)
    tokenizer = load_tokenizer(config.tokenizer)
    if not isinstance(tokenizer, PegasusTokenizer) or tokenizer.vocab_size < len(SPECIALS):
        raise DataError(
            f"{config.tokenizer}: not a vocab.txt in Chinese BERT's layout with its {len(SPECIALS)} first ids"
        )
    return tokenizer.vocabulary
