"""The vocabulary of a tokenizer.json, which is all that transformers 5 saves: BERT's wordpieces, or mT5's pieces.

A Unigram model becomes the sentencepiece model that it was made of, which a run keeps and mT5 was trained with; its ids
are those of the tokenizers library but where two cuts of a text are equally probable.
"""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from training.files.atomic import read_json
from training.files.errors import DataError, damaged

_REMEDY = "copy vocab.txt or spiece.model from the folder that it was made from, in its place"
# Blanks beside blanks, as mT5's files have it, and at the ends, as ours have: of the text, and once of each line.
_SQUEEZED, _ENDS = {("Regex", " {2,}", " "), ("Regex", " {2,}", "\u2581")}, ("Regex", r"\A +| +\z", "")
_OLD_ENDS = ("Regex", "^ +| +$", "")
_BLANKS = [c for c in range(0x3001) if chr(c).isspace() and chr(c) not in " \x1c\x1d\x1e\x1f"]  # by Unicode, but " "


def read_fast(file: Path) -> dict[str, Any]:
    """The content of a tokenizer.json, or of a part of one. Raises DataError for what is of no such form."""
    fast = read_json(file)
    try:
        for token in fast.get("added_tokens") or []:
            _ = token["content"]
        for name in ("normalizer", "pre_tokenizer", "post_processor"):
            for step in _steps(fast, name):
                _ = (
                    step["type"],
                    step.get("pattern", {}).items(),
                    base64.b64decode(step.get("precompiled_charsmap", "")),
                )
        model = fast.get("model") or {}
        vocabulary: Any = model.get("vocab")
        if model.get("type") == "WordPiece":
            _ = sorted(vocabulary.values()), "".join(vocabulary)
        elif model.get("type") == "Unigram":
            _ = ["".join(token) + format(score, "f") for token, score in vocabulary]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise damaged(file, error, "not of the form of a tokenizer.json") from None
    return fast


def check_wordpieces(fast: Mapping[str, Any], file: Path) -> None:
    """Raises DataError for a WordPiece tokenizer.json that cuts and frames texts in another way than BERT's class; what
    case it takes is asked elsewhere."""
    normal, cuts, model = _steps(fast, "normalizer"), _steps(fast, "pre_tokenizer"), fast.get("model") or {}
    wrong = ""
    for name, steps, only in (("normalizer", normal, "BertNormalizer"), ("pre_tokenizer", cuts, "BertPreTokenizer")):
        found = [step["type"] for step in steps]
        wrong = wrong or (f"its {name} is {', '.join(found) or 'null'}, not {only}" if found != [only] else "")
    rules: list[tuple[Mapping[str, Any], str, Any]] = [
        *((step, name, True) for step in normal for name in ("clean_text", "handle_chinese_chars")),
        (model, "max_input_chars_per_word", 100),
        (model, "unk_token", "[UNK]"),
    ]
    for about, name, value in rules:
        if not wrong and about.get(name, value) != value:
            wrong = f"{name} is {json.dumps(about[name])}, not {json.dumps(value)}"
    if not wrong and (framed := _framed(fast)) != ["[CLS]", None, "[SEP]"]:
        wrong = f"its post_processor frames a text as {json.dumps(framed)}, not by [CLS] and [SEP]"
    if wrong:
        raise DataError(
            f'{file}: {wrong}; where BERT\'s rules are the model\'s, add "tokenizer_class": "BertTokenizer" to '
            "tokenizer_config.json"
        )


def check_end(fast: Mapping[str, Any], end: str, file: Path) -> None:
    """Raises DataError for a Unigram tokenizer.json that does not put the end token behind a text."""
    if (found := _framed(fast)) != [None, end]:
        raise DataError(
            f"{file}: its post_processor frames a text as {json.dumps(found)}, not by {end} behind it; where mT5's "
            'rules are the model\'s, add "tokenizer_class": "T5Tokenizer" to tokenizer_config.json'
        )


def _framed(fast: Mapping[str, Any]) -> list[str | None] | None:
    """The special tokens around a text, which is None among them; None where nothing or something else frames it."""
    steps = [step for step in _steps(fast, "post_processor") if step["type"] != "ByteLevel"]
    about: Mapping[str, Any] = steps[0] if len(steps) == 1 else {"type": None}
    if about["type"] == "BertProcessing":
        return [about["cls"][0], None, about["sep"][0]]
    if about["type"] != "TemplateProcessing":
        return None if steps else [None]
    return [part["SpecialToken"]["id"] if "SpecialToken" in part else None for part in about["single"]]


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
    for step in _steps(fast, "pre_tokenizer"):
        if step["type"] == "Metaspace":
            return str(step.get("prepend_scheme", "always")) if step.get("add_prefix_space", True) else "never"
    return None


def _normalisation(fast: Mapping[str, Any], file: Path) -> tuple[bytes, bool]:
    """(what characters become, whether blanks at the ends and beside blanks are dropped)."""
    normal, cuts = _steps(fast, "normalizer"), _steps(fast, "pre_tokenizer")
    known = {"Precompiled", "Strip", "Replace", "WhitespaceSplit", "Metaspace"}
    odd = [x["type"] for x in (*normal, *cuts) if x["type"] not in known]
    replaced = {
        (*pattern, x.get("content")) for x in normal if x["type"] == "Replace" for pattern in x["pattern"].items()
    }
    odd += [f"Replace of {x[1]!r} by {x[2]!r}" for x in replaced - _SQUEEZED - {_ENDS, _OLD_ENDS}]
    odd += [f"Metaspace of {x.get('replacement')!r}" for x in cuts if x.get("replacement", "\u2581") != "\u2581"]
    splits = any(x["type"] == "WhitespaceSplit" for x in cuts)
    # Blanks are dropped at the ends and beside blanks, or nowhere, unless they part words anyway.
    ends = bool(replaced & {_ENDS, _OLD_ENDS}) or any(x["type"] == "Strip" for x in normal)
    if not splits and ends != bool(replaced & _SQUEEZED):
        odd.append("Strip alone" if ends else "Replace of blanks, and no Strip,")
    if odd or prefix_of(fast) is None:
        raise DataError(f"{file}: {odd[0] if odd else 'no Metaspace'} is not mT5's way to cut a text; {_REMEDY}")
    maps = [base64.b64decode(x["precompiled_charsmap"]) for x in normal if x["type"] == "Precompiled"]
    if splits and not maps:
        maps = [_blanks_alone()]
    return (maps or [b""])[0], splits or ends


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
    parts = [step.get(key) or [] for key in ("normalizers", "pretokenizers", "processors")]
    return [*chain.from_iterable(parts)] if step["type"] == "Sequence" else [step]
