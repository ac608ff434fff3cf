"""The vocabulary of a tokenizer.json, which is all that transformers 5 saves: BERT's wordpieces, or mT5's pieces.

A Unigram model becomes the sentencepiece model that it was made of, which a run keeps and mT5 was trained with; its ids
are those of the tokenizers library but where two cuts of a text are equally probable.
"""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from training.files.errors import DataError

_REMEDY = "copy vocab.txt or spiece.model from the folder that it was made from, in its place"
_SQUEEZES = (" {2,}", "^ +| +$")  # blanks beside blanks, as mT5's files have it, and at the ends, as ours have
_BLANKS = [c for c in range(0x3001) if chr(c).isspace() and chr(c) not in " \x1c\x1d\x1e\x1f"]  # by Unicode, but " "


def vocabulary_of(fast: Mapping[str, Any], file: Path) -> list[str]:
    """The tokens in the order of ids, of either kind. Raises DataError for other kinds, and for holes."""
    model = fast.get("model") or {}
    kind, vocabulary = model.get("type"), model.get("vocab")
    if kind == "WordPiece" and isinstance(vocabulary, dict):
        tokens: list[str] = sorted(vocabulary, key=vocabulary.__getitem__)
        if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
            raise DataError(f"{file}: the ids of its vocabulary have holes; {_REMEDY}")
        if model.get("continuing_subword_prefix", "##") != "##":
            raise DataError(f"{file}: wordpieces marked by {model['continuing_subword_prefix']!r}, not ##; {_REMEDY}")
        return tokens
    if kind == "Unigram" and isinstance(vocabulary, list):
        return [token for token, _ in vocabulary]
    raise DataError(f"{file}: a {kind} model; only WordPiece, as BERT's, and Unigram, as mT5's, are read: {_REMEDY}")


def check_same(fast: Mapping[str, Any], vocabulary: Sequence[str], file: Path, other: Path) -> None:
    """Raises DataError where a tokenizer.json has another vocabulary than the file beside it. Behind that one's tokens
    it may have others: T5's sentinels."""
    if (fast.get("model") or {}).get("type") not in ("WordPiece", "Unigram"):
        return
    found = vocabulary_of(fast, file)
    for i, token in enumerate(vocabulary):
        if i >= len(found) or found[i] != token:
            here = repr(found[i]) if i < len(found) else "nothing"
            raise DataError(
                f"{file}: id {i} is {here}, and {token!r} in {other.name}; remove the file that is not the model's"
            )


def sentencepiece_of(fast: Mapping[str, Any], file: Path) -> bytes:
    """A Unigram tokenizer.json as a sentencepiece model, without added tokens at its end.
    Raises DataError for normalisation that sentencepiece has not."""
    about = fast["model"]
    added = {token.get("content") for token in fast.get("added_tokens") or []}
    pieces: list[tuple[str, float]] = [*map(tuple, about["vocab"])]
    while len(pieces) > 3 and pieces[-1][0] in added:
        pieces.pop()
    if about.get("unk_id") != 2 or len(pieces) < 3:
        raise DataError(f"{file}: <unk> has the id {about.get('unk_id')}, not mT5's 2; {_REMEDY}")
    charsmap, squeezed = _normalisation(fast, file)
    proto = sentencepiece_model_pb2.ModelProto()
    trainer, rules = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size = trainer.UNIGRAM, len(pieces)
    trainer.byte_fallback = bool(about.get("byte_fallback"))
    trainer.pad_id, trainer.eos_id, trainer.unk_id, trainer.bos_id = 0, 1, 2, -1
    trainer.pad_piece, trainer.eos_piece, trainer.unk_piece = (piece for piece, _ in pieces[:3])
    rules.precompiled_charsmap, rules.remove_extra_whitespaces = charsmap, squeezed
    rules.add_dummy_prefix = prefix_of(fast) != "never"
    for i, (piece, score) in enumerate(pieces):
        kind = {0: "CONTROL", 1: "CONTROL", 2: "UNKNOWN"}.get(i, "NORMAL")
        if trainer.byte_fallback and len(piece) == 6 and piece.startswith("<0x"):
            kind = "BYTE"
        proto.pieces.add(piece=piece, score=score, type=proto.SentencePiece.Type.Value(kind))
    return proto.SerializeToString()


def prefix_of(fast: Mapping[str, Any]) -> str | None:
    """Before what a word's mark is put: always, first or never; None without a rule of sentencepiece's."""
    return next((x.get("prepend_scheme") for x in _steps(fast, "pre_tokenizer") if x["type"] == "Metaspace"), None)


def _normalisation(fast: Mapping[str, Any], file: Path) -> tuple[bytes, bool]:
    """(what characters become, whether blanks at the ends and beside blanks are dropped)."""
    normal, cuts = _steps(fast, "normalizer"), _steps(fast, "pre_tokenizer")
    known = {"Precompiled", "Strip", "Replace", "WhitespaceSplit", "Metaspace"}
    odd = [x["type"] for x in (*normal, *cuts) if x["type"] not in known]
    odd += [str(x["pattern"]) for x in normal if x["type"] == "Replace" and x["pattern"].get("Regex") not in _SQUEEZES]
    if odd or prefix_of(fast) is None:
        raise DataError(f"{file}: {odd[0] if odd else 'no Metaspace'} is not mT5's way to cut a text; {_REMEDY}")
    maps = [base64.b64decode(x["precompiled_charsmap"]) for x in normal if x["type"] == "Precompiled"]
    splits = any(x["type"] == "WhitespaceSplit" for x in cuts)
    if splits and not maps:
        maps = [_blanks_alone()]
    return (maps or [b""])[0], splits or any(x["type"] == "Replace" for x in normal)


def _blanks_alone() -> bytes:
    """The map that makes a blank of every kind of blank, and leaves all else."""
    sentencepiece.set_min_log_level(2)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("".join(f"{c:X}\t20\n" for c in _BLANKS))
        rules.flush()
        made = sentencepiece.SentencePieceNormalizer(rule_tsv=rules.name)
    spec = sentencepiece_model_pb2.NormalizerSpec.FromString(made.serialized_normalizer_spec())
    return bytes(spec.precompiled_charsmap)


def _steps(fast: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    step = fast.get(name)
    if step is None:
        return []
    return step.get("normalizers") or step.get("pretokenizers") or [] if step["type"] == "Sequence" else [step]
