"""Text to ids and back: T5-PEGASUS's words of jieba over a BERT vocabulary, or mT5's sentencepiece.

T5-PEGASUS (Su, https://kexue.fm/archives/8209) tokenises as bert4keras does with `do_lower_case=True` and
`pre_tokenize=jieba.cut(HMM=False)`: the text is normalised first and cut into words after; a word that is in the
vocabulary is one token, any other goes through BERT's own rules (Devlin et al., 2019): spaces around Chinese characters
and punctuation, then the greedy longest-match-first wordpiece. What lies beside a vocabulary may change this
(pegasus_zh/text/side_files.py): tokens that were added, capitals, BERT's rules alone, how a target begins and ends.
"""

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import rjieba
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from pegasus_zh.text.added_tokens import AddedTokens
from pegasus_zh.text.lines import first_line
from pegasus_zh.text.records import Record, decoded
from pegasus_zh.text.side_files import (
    FAST_FILE,
    SETTINGS_FILE,
    Settings,
    settings_of_pieces,
    settings_of_wordpieces,
)
from pegasus_zh.text.spacing import is_chinese, join_tokens
from pegasus_zh.text.tokenizer_json import sentencepiece_of, vocabulary_of
from training.files.atomic import read_json, write_bytes
from training.files.errors import DataError

PEGASUS_FILE = "vocab.txt"
SENTENCEPIECE_FILE = "spiece.model"
PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS = [PAD, *(f"[unused{i}]" for i in range(1, 100)), UNK, CLS, SEP, MASK, "<S>", "<T>"]  # Chinese BERT's first
_BERT_LAYOUT = {PAD: 0, UNK: 100, CLS: 101, SEP: 102, MASK: 103}
LONGEST_WORD = 200  # characters; bert4keras's `word_maxlen`, beyond which a word is [UNK]
_REMEMBERED_WORDS = 1 << 18  # about 50 MB: the vocabulary, and the first 200,000 other words of a corpus

# Combining marks are rare in Chinese text, so one search decides whether to look at each character. Beyond the basic
# plane the regular expression would become slow, so every such character (an emoji, say) counts as a possible mark.
_MAY_BE_MARK = re.compile(
    "[" + "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c) == "Mn") + "\U00010000-\U0010ffff]"
)


class Tokenizer(Protocol):
    """What the pipeline and the model know of a tokenizer. Ids are 0 .. vocab_size-1."""

    kind: str  # "pegasus" or "sentencepiece"
    vocab_size: int
    pad_id: int
    unk_id: int
    eos_id: int
    start_id: int  # what the decoder is started with
    mask_id: int | None  # what a masked token is replaced by, if there is such an id
    specials: int  # ids below are special tokens
    fingerprint: str  # sha256 over all that decides the ids
    settings: Settings  # what lay beside the vocabulary
    _added: AddedTokens

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens."""
        if not self.settings.added:
            return self._encode(text)
        ids: list[int] = []
        for i, part in enumerate(self._added.split(text)):
            ids += [part] if isinstance(part, int) else self._encode(part, is_first=i == 0)
        return ids

    def _encode(self, text: str, is_first: bool = True) -> list[int]:
        """The ids of a text, or of a part of it, without tokens that were added."""
        ...

    def frame_source(self, ids: list[int], max_length: int) -> list[int]:
        """The encoder's input: `ids` between the special tokens, at most `max_length` ids, the specials kept."""
        ...

    def frame_target(self, ids: list[int], max_length: int) -> list[int]:
        """The decoder's labels: `ids` and the end token. `max_length` counts the start token too: max_length-1 ids.

        What is cut has no end token: it would teach to end within a sentence.
        """
        kept = _truncate(ids, max_length - 2)
        return [*kept, self.eos_id] if len(kept) == len(ids) else list(ids[: max_length - 1])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` up to the first end token; special tokens, and ids outside the vocabulary, are dropped."""
        ids = list(ids)
        if self.eos_id in ids:
            del ids[ids.index(self.eos_id) :]
        if not self.settings.added:
            return self._decode(ids)
        added, text = {token.id: "" if token.special else token.content for token in self.settings.added}, ""
        for is_added, group in itertools.groupby(ids, added.__contains__):
            found = list(group)
            part = "".join(map(added.__getitem__, found)) if is_added else self._decode(found)
            beside = text[-1:] + part[:1]  # words of Latin letters, and numbers, are apart
            text += " " * (len(beside) == 2 and beside.isascii() and beside.isalnum()) + part
        return text

    def _decode(self, ids: list[int]) -> str:
        """The text of ids that were not added."""
        ...

    def pieces(self) -> list[str]:
        """What each id adds to a text, without blanks around it; "" for special tokens."""
        found = self._pieces()
        found += [""] * (self.vocab_size - len(found))
        for token in self.settings.added:
            found[token.id] = "" if token.special else token.content.strip()
        return found

    def _pieces(self) -> list[str]:
        """The same of the vocabulary's own ids."""
        ...

    def save(self, folder: Path) -> None:
        """Writes vocab.txt or spiece.model into `folder`, atomically, and beside it what else decides the ids."""
        if about := self.settings.about():
            _write(Path(folder) / SETTINGS_FILE, (json.dumps(about, ensure_ascii=False, indent=2) + "\n").encode())

    def _settle(self, settings: Settings, size: int, content: bytes, normalizer: normalizers.Normalizer | None) -> None:
        """Takes over what lay beside a vocabulary of `size` tokens."""
        self.settings = settings
        self.vocab_size = max(size, 1 + max((token.id for token in settings.added), default=0))
        self.start_id = self.start_id if settings.start is None else settings.start
        self.eos_id = self.eos_id if settings.end is None else settings.end
        self.pad_id = self.pad_id if settings.pad is None else settings.pad
        if settings.added:
            self._added = AddedTokens(settings.added, normalizer)
        about = settings.about()
        kind = f"{self.kind} {json.dumps(about, sort_keys=True)}" if about else self.kind
        self.fingerprint = _fingerprint(kind, content)


class PegasusTokenizer(Tokenizer):
    """T5-PEGASUS's tokenizer: words of jieba (HMM off), else BERT's wordpiece.

    `vocabulary` is in id order and must hold [PAD], [UNK], [CLS], [SEP], [MASK] at 0, 100, 101, 102, 103; `source`
    names it in the `DataError` that a wrong place, an empty line or a repeated token raises. `settings.cased`: capitals
    and combining marks are kept. `settings.plain`: BERT's rules alone, which differ for scripts without jieba's words.
    """

    kind = "pegasus"
    pad_id, unk_id, start_id, eos_id = (_BERT_LAYOUT[token] for token in (PAD, UNK, CLS, SEP))
    mask_id, specials = _BERT_LAYOUT[MASK], len(SPECIALS)

    def __init__(self, vocabulary: Sequence[str], source: str = "vocabulary", settings: Settings | None = None) -> None:
        self.vocabulary, settings = list(vocabulary), settings or Settings()
        ids = _check_vocabulary(self.vocabulary, source)
        self._word_ids = _WordIds(ids)
        self._special_ids = frozenset(i for token, i in ids.items() if token[0] in "[<" and _is_special(token))
        self._plain = plain_bert(ids, settings.cased) if settings.plain else None
        normalizer = None
        if not settings.cased:
            normalizer = normalizers.BertNormalizer(
                clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=True
            )
        self._settle(settings, len(self.vocabulary), "\n".join(self.vocabulary).encode(), normalizer)

    def __reduce__(self):  # sent to worker processes as its vocabulary alone
        return PegasusTokenizer, (self.vocabulary, "vocabulary", self.settings)

    def _encode(self, text: str, is_first: bool = True) -> list[int]:
        if self._plain is not None:
            return self._plain.encode(text, add_special_tokens=False).ids
        found = rjieba.cut(text, False) if self.settings.cased else words(text)
        return list(itertools.chain.from_iterable(map(self._word_ids.__getitem__, found)))

    def frame_source(self, ids: list[int], max_length: int) -> list[int]:
        return [_BERT_LAYOUT[CLS], *_truncate(ids, max_length - 2), _BERT_LAYOUT[SEP]]

    def _decode(self, ids: list[int]) -> str:
        """Tokens are joined with the blanks of bert4keras (pegasus_zh/text/spacing.py)."""
        vocabulary, specials, size = self.vocabulary, self._special_ids, len(self.vocabulary)
        return join_tokens([vocabulary[i] for i in ids if 0 <= i < size and i not in specials])

    def _pieces(self) -> list[str]:
        found = ("" if _is_special(token) else token for token in self.vocabulary)
        return [token[2:] if token.startswith("##") and len(token) > 2 else token for token in found]

    def save(self, folder: Path) -> None:
        super().save(folder)
        _write(Path(folder) / PEGASUS_FILE, "".join(token + "\n" for token in self.vocabulary).encode())


class SentencePieceTokenizer(Tokenizer):
    """mT5's tokenizer (Xue et al., 2021): a sentencepiece model with pad 0, </s> 1, <unk> 2; decoding starts from pad.

    `model` is the content of a spiece.model file; `source` names it in the `DataError` that a broken one raises.
    """

    kind = "sentencepiece"
    pad_id, eos_id, unk_id, start_id = 0, 1, 2, 0
    mask_id, specials = None, 3

    def __init__(self, model: bytes, source: str = "sentencepiece model", settings: Settings | None = None) -> None:
        self._model, settings = model, settings or Settings()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError:
            raise DataError(f"{source}: not a sentencepiece model; copy the file again or train another") from None
        found = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
        if found != (0, 1, 2):
            raise DataError(f"{source}: pad, </s>, <unk> are {found}, not mT5's (0, 1, 2); train it with these ids")
        normalizer = None
        if settings.added:
            proto = sentencepiece_model_pb2.ModelProto.FromString(model)
            if charsmap := proto.normalizer_spec.precompiled_charsmap:
                normalizer = normalizers.Precompiled(charsmap)
            proto.normalizer_spec.add_dummy_prefix = False
            self._within = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self._settle(settings, self._processor.get_piece_size(), model, normalizer)

    def __reduce__(self):
        return SentencePieceTokenizer, (self._model, "sentencepiece model", self.settings)

    @property
    def vocabulary(self) -> list[str]:
        """The pieces as the model spells them, in the order of ids."""
        return self._processor.id_to_piece(list(range(self._processor.get_piece_size())))

    def _encode(self, text: str, is_first: bool = True) -> list[int]:
        is_within = self.settings.one_prefix and not is_first and not text[:1].isspace()
        return (self._within if is_within else self._processor).encode(text)

    def piece_id(self, piece: str) -> int:
        """The id of one piece as the model spells it ("▁" for a space); `unk_id` where it has none."""
        return self._processor.piece_to_id(piece)

    def frame_source(self, ids: list[int], max_length: int) -> list[int]:
        return [*_truncate(ids, max_length - 1), SentencePieceTokenizer.eos_id]

    def _decode(self, ids: list[int]) -> str:
        size = self._processor.get_piece_size()
        return self._processor.decode([int(i) for i in ids if self.unk_id < i < size])

    def _pieces(self) -> list[str]:
        found = self._processor.id_to_piece(list(range(self._processor.get_piece_size())))
        return ["" if i <= self.unk_id else piece.strip("\N{LOWER ONE EIGHTH BLOCK}") for i, piece in enumerate(found)]

    def save(self, folder: Path) -> None:
        super().save(folder)
        _write(Path(folder) / SENTENCEPIECE_FILE, self._model)


class _WordIds(dict[str, tuple[int, ...]]):
    """The ids of a word: known for the vocabulary's own, worked out and remembered for the others that are met."""

    def __init__(self, ids: dict[str, int]) -> None:
        super().__init__((token, (i,)) for token, i in ids.items())
        self._wordpiece = WordPiece(ids, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(piece.id for part in split_plain(word) for piece in self._wordpiece.tokenize(part))
        if len(self) < _REMEMBERED_WORDS and len(word) <= LONGEST_WORD:
            self[word] = ids
        return ids


def plain_bert(ids: dict[str, int], cased: bool) -> tokenizers.Tokenizer:
    """BERT's own tokenizer (Devlin et al., 2019), without special tokens."""
    made = tokenizers.Tokenizer(WordPiece(ids, unk_token=UNK))
    made.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads a folder that holds vocab.txt, spiece.model or tokenizer.json, with what else there decides the ids; or one
    of the first two files itself. Raises `DataError`."""
    path = Path(path)
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
    fast = read_json(file)
    vocabulary = vocabulary_of(fast, file)
    if fast["model"]["type"] == "WordPiece":
        return PegasusTokenizer(vocabulary, str(file), _pegasus_settings(file, vocabulary))
    model = sentencepiece_of(fast, file)
    pieces = SentencePieceTokenizer(model, str(file)).vocabulary
    return SentencePieceTokenizer(model, str(file), settings_of_pieces(file, pieces))


def _pegasus_settings(file: Path, vocabulary: list[str]) -> Settings:
    """What lies beside a vocab.txt. Raises DataError."""
    has_words = any(len(token) > 1 and all(map(is_chinese, token)) for token in vocabulary)
    never = {i for i, token in enumerate(vocabulary) if _is_special(token)} - {_BERT_LAYOUT[UNK]}
    marks = {"start": _BERT_LAYOUT[CLS], "end": _BERT_LAYOUT[SEP], "pad": _BERT_LAYOUT[PAD]}
    return settings_of_wordpieces(file, vocabulary, marks, _BERT_LAYOUT, never, has_words)


def _lines(path: Path, content: bytes) -> list[str]:
    """The tokens of a vocab.txt, without blanks beside them, as bert4keras reads it. Raises DataError."""
    head, end, rest = content.partition(b"\n")
    text = decoded(Record(str(path), 1, first_line(str(path), head + end) + rest))
    # Not splitlines: U+2028 is a token of Chinese BERT.
    lines = _with_separator([line.removesuffix("\r") for line in text.split("\n")])
    return [line.strip(" \t") or line for line in (lines[:-1] if lines[-1] == "" else lines)]


def words(text: str) -> list[str]:
    """The words that encode looks up: jieba's without its hidden Markov model, of the normalised text."""
    return rjieba.cut(normalise(text), False)


def normalise(text: str) -> str:
    """Lower case, canonical decomposition (NFD), no combining marks (Mn)."""
    text = unicodedata.normalize("NFD", text.lower())
    if _MAY_BE_MARK.search(text):
        text = "".join(c for c in text if unicodedata.category(c) != "Mn")
    return text


def split_plain(text: str) -> list[str]:
    """BERT's basic tokenizer on normalised text: words by space, Chinese characters and punctuation by themselves."""
    return "".join(map(_spell, text)).split()


def _spell(character: str) -> str:
    """What the basic tokenizer makes of one character: itself, itself between spaces, or nothing."""
    category = unicodedata.category(character)
    # The ASCII symbols that Unicode does not class as punctuation ($ + < = > ^ ` | ~) are punctuation to BERT.
    if category[0] == "P" or (character.isascii() and category[0] == "S") or is_chinese(character):
        return f" {character} "
    if character == "\ufffd" or (category in ("Cc", "Cf") and character not in "\t\n\r"):
        return ""
    return character


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


def _check_vocabulary(vocabulary: list[str], source: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i, token in enumerate(vocabulary):
        if token == "":
            raise DataError(f"{source}:{i + 1}: empty line; to keep the ids after it, write an unused token there")
        if token in ids:
            raise DataError(f"{source}:{i + 1}: {token!r} is already on line {ids[token] + 1}; each token has one id")
        ids[token] = i
    for token, i in _BERT_LAYOUT.items():
        if ids.get(token) != i:
            found = repr(vocabulary[i]) if i < len(vocabulary) else "nothing"
            raise DataError(f"{source}:{i + 1}: {found} where {token} must be; use Chinese BERT's layout of ids 0..105")
    return ids


def _is_special(token: str) -> bool:
    return len(token) > 2 and ((token[0], token[-1]) == ("[", "]") or token in ("<S>", "<T>"))


def _truncate(ids: list[int], room: int) -> list[int]:
    if room < 1:
        raise DataError("max_length leaves no room for text beside the special tokens; use at least 3")
    return ids[:room]


def _fingerprint(kind: str, content: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\0" + content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, and run the same again") from error
