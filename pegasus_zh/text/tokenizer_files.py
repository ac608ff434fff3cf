"""A tokenizer's files: loaded from a folder, whoever wrote it, or from a vocabulary alone; kept in a run's folder."""

from pathlib import Path

from pegasus_zh.text.lines import first_line
from pegasus_zh.text.records import Record, decoded
from pegasus_zh.text.side_files import FAST_FILE, Settings, settings_of_pieces, settings_of_wordpieces
from pegasus_zh.text.spacing import is_chinese
from pegasus_zh.text.tokenizer_json import read_fast, sentencepiece_of, vocabulary_of
from pegasus_zh.text.tokenizers import (
    BERT_LAYOUT,
    CLS,
    PAD,
    PEGASUS_FILE,
    SENTENCEPIECE_FILE,
    SEP,
    PegasusTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    is_special,
)
from pegasus_zh.text.wordpieces import UNK
from training.files.buckets import path_of
from training.files.errors import DataError


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads a folder that holds vocab.txt, spiece.model or tokenizer.json, with what else there decides the ids; or one
    of the first two files itself. Raises `DataError`."""
    path = path_of(path, "the tokenizer")
    if path.is_dir():
        found = [path / name for name in (PEGASUS_FILE, SENTENCEPIECE_FILE) if (path / name).is_file()]
        if not found and (path / FAST_FILE).is_file():
            return _of_json(path)
        if len(found) != 1:
            problem = f"holds both {PEGASUS_FILE} and" if found else f"holds neither {PEGASUS_FILE} nor"
            raise DataError(f"{path}: {problem} {SENTENCEPIECE_FILE}; a tokenizer's folder has exactly one of them")
        path = found[0]
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a folder that holds {PEGASUS_FILE} or {SENTENCEPIECE_FILE}")
    content = path.read_bytes()
    if path.suffix == ".model":
        tokenizer = SentencePieceTokenizer(content, str(path))
        settings = settings_of_pieces(path, tokenizer.vocabulary) if path.name == SENTENCEPIECE_FILE else Settings()
        return tokenizer if settings == Settings() else SentencePieceTokenizer(content, str(path), settings)
    vocabulary = _lines(path, content)
    settings = _pegasus_settings(path, vocabulary) if path.name == PEGASUS_FILE else Settings()
    return PegasusTokenizer(vocabulary, str(path), settings)


def _of_json(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that has no other vocabulary than tokenizer.json. Raises DataError."""
    file = folder / FAST_FILE
    fast = read_fast(file)
    vocabulary = vocabulary_of(fast, file)
    if fast["model"]["type"] == "WordPiece":
        return PegasusTokenizer(vocabulary, str(file), _pegasus_settings(file, vocabulary))
    model = sentencepiece_of(fast, file)
    pieces = SentencePieceTokenizer(model, str(file)).vocabulary
    return SentencePieceTokenizer(model, str(file), settings_of_pieces(file, pieces))


def _pegasus_settings(file: Path, vocabulary: list[str]) -> Settings:
    """What lies beside a vocab.txt. Raises DataError."""
    has_words = any(len(token) > 1 and all(map(is_chinese, token)) for token in vocabulary)
    never = {i for i, token in enumerate(vocabulary) if is_special(token)} - {BERT_LAYOUT[UNK]}
    marks = {"start": BERT_LAYOUT[CLS], "end": BERT_LAYOUT[SEP], "pad": BERT_LAYOUT[PAD]}
    return settings_of_wordpieces(file, vocabulary, marks, BERT_LAYOUT, never, has_words)


def _lines(path: Path, content: bytes) -> list[str]:
    """The tokens of a vocab.txt, without blanks beside them, as bert4keras reads it. Raises DataError."""
    head, end, rest = content.partition(b"\n")
    text = decoded(Record(str(path), 1, first_line(str(path), head + end) + rest))
    # Not splitlines: U+2028 is a token of Chinese BERT.
    lines = _with_separator([line.removesuffix("\r") for line in text.split("\n")])
    return [line.strip(" \t") or line for line in (lines[:-1] if lines[-1] == "" else lines)]


def keep_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Saves it in a run's folder. Raises DataError where the run has another one, which its checkpoints need."""
    if any((folder / name).exists() for name in (PEGASUS_FILE, SENTENCEPIECE_FILE)):
        if load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
            raise DataError(f"{folder}: the run there has another tokenizer; give another --folder")
    else:
        tokenizer.save(folder)


def _with_separator(lines: list[str]) -> list[str]:
    """With Chinese BERT's token U+2028 in its place, ‧ before and ‰ after it, where an editor took it for the end of a
    line and left an empty one."""
    empty = [i for i, line in enumerate(lines[:-1]) if not line]
    if len(empty) == 1 and "\u2028" not in lines:
        before, after = lines[empty[0] - 1 : empty[0]], lines[empty[0] + 1]
        if "".join(before) < "\u2028" < after and len("".join(before)) == len(after) == 1:
            lines[empty[0]] = "\u2028"
    return lines
