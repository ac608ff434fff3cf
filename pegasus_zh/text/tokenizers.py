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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import rjieba
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

from pegasus_zh.text.added_tokens import AddedTokens
from pegasus_zh.text.lists import listed
from pegasus_zh.text.side_files import SETTINGS_FILE, Settings
from pegasus_zh.text.spacing import join_tokens
from pegasus_zh.text.wordpieces import UNK, WordIds, normalise, plain_bert, words
from training.files.atomic import as_json, write_bytes
from training.files.buckets import path_of
from training.files.errors import DataError

PEGASUS_FILE = "vocab.txt"
SENTENCEPIECE_FILE = "spiece.model"
PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
SPECIALS = [PAD, *(f"[unused{i}]" for i in range(1, 100)), UNK, CLS, SEP, MASK, "<S>", "<T>"]  # Chinese BERT's first
BERT_LAYOUT = {PAD: 0, UNK: 100, CLS: 101, SEP: 102, MASK: 103}


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
        """The ids of `text`, without special tokens. Raises ValueError for half of a surrogate pair."""
        try:
            if not self.settings.added:
                return self._encode(text)
            ids: list[int] = []
            for i, part in enumerate(self._added.split(text)):
                ids += [part] if isinstance(part, int) else self._encode(part, is_first=i == 0)
            return ids
        except (RuntimeError, TypeError, UnicodeEncodeError):
            listed([text])  # which says what of it is no text
            raise

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

    def normalise(self, text: str) -> str:
        """The text in the letters of the vocabulary, where encoding it changes letters first."""
        return text

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

    def parted(self) -> list[bool]:
        """Has a text a blank before each id's piece, where letters of a word stand before it?"""
        found = self._parted()
        return found + [True] * (self.vocab_size - len(found))

    def _parted(self) -> list[bool]:
        """The same of the vocabulary's own ids."""
        ...

    def byte_ids(self, character: str) -> tuple[int, ...]:
        """The ids that write a character by its bytes in UTF-8; none where the vocabulary has no bytes."""
        return ()

    def save(self, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        """Writes vocab.txt or spiece.model into `folder`, atomically, and beside it what else decides the ids, with
        `more` settings of tokenizer_config.json. Raises DataError where there is no room."""
        if about := {**self.settings.about(), **(more or {})}:
            _write(path_of(folder, "folder") / SETTINGS_FILE, as_json(about))

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
    pad_id, unk_id, start_id, eos_id = (BERT_LAYOUT[token] for token in (PAD, UNK, CLS, SEP))
    mask_id, specials = BERT_LAYOUT[MASK], len(SPECIALS)

    def __init__(self, vocabulary: Sequence[str], source: str = "vocabulary", settings: Settings | None = None) -> None:
        self.vocabulary, settings = list(vocabulary), settings or Settings()
        ids = _check_vocabulary(self.vocabulary, source)
        self._word_ids = WordIds(ids)
        self._special_ids = frozenset(i for token, i in ids.items() if token[0] in "[<" and is_special(token))
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
        return [BERT_LAYOUT[CLS], *_truncate(ids, max_length - 2), BERT_LAYOUT[SEP]]

    def _decode(self, ids: list[int]) -> str:
        """Tokens are joined with the blanks of bert4keras (pegasus_zh/text/spacing.py)."""
        vocabulary, specials, size = self.vocabulary, self._special_ids, len(self.vocabulary)
        return join_tokens([vocabulary[i] for i in ids if 0 <= i < size and i not in specials])

    def normalise(self, text: str) -> str:
        return text if self.settings.cased else normalise(text)

    def _pieces(self) -> list[str]:
        found = ("" if is_special(token) else token for token in self.vocabulary)
        return [token[2:] if token.startswith("##") and len(token) > 2 else token for token in found]

    def _parted(self) -> list[bool]:
        return [not (token.startswith("##") and len(token) > 2) for token in self.vocabulary]

    def save(self, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        super().save(folder, more)
        _write(path_of(folder, "folder") / PEGASUS_FILE, "".join(token + "\n" for token in self.vocabulary).encode())


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
        silent = self._processor.is_byte
        return [
            "" if i <= self.unk_id or silent(i) else piece.strip("\N{LOWER ONE EIGHTH BLOCK}")
            for i, piece in enumerate(self.vocabulary)
        ]

    def _parted(self) -> list[bool]:
        return [piece.startswith("\N{LOWER ONE EIGHTH BLOCK}") for piece in self.vocabulary]

    def byte_ids(self, character: str) -> tuple[int, ...]:
        ids = tuple(self.piece_id(f"<0x{byte:02X}>") for byte in character.encode())
        return ids if all(map(self._processor.is_byte, ids)) else ()

    def save(self, folder: Path, more: Mapping[str, Any] | None = None) -> None:
        super().save(folder, more)
        _write(path_of(folder, "folder") / SENTENCEPIECE_FILE, self._model)


def _check_vocabulary(vocabulary: list[str], source: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for i, token in enumerate(vocabulary):
        if token == "":
            raise DataError(f"{source}:{i + 1}: empty line; to keep the ids after it, write an unused token there")
        if token in ids:
            raise DataError(f"{source}:{i + 1}: {token!r} is already on line {ids[token] + 1}; each token has one id")
        ids[token] = i
    for token, i in BERT_LAYOUT.items():
        if ids.get(token) != i:
            found = repr(vocabulary[i]) if i < len(vocabulary) else "nothing"
            raise DataError(f"{source}:{i + 1}: {found} where {token} must be; use Chinese BERT's layout of ids 0..105")
    return ids


def is_special(token: str) -> bool:
    """Is it one of a vocab.txt's tokens that no text has?"""
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
