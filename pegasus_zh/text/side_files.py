"""What decides ids too and lies beside a vocabulary: the files of transformers.

tokenizer_config.json says whose rules cut a text; tokenizer.json, added_tokens.json, special_tokens_map.json and
tokenizer_config.json hold added tokens; config.json and generation_config.json of an encoder-decoder say how a target
begins and ends. `legacy` says whether a word begins behind an added token, as one did in T5's tokenizer before
https://github.com/huggingface/transformers/pull/24565. What a run keeps of them is one tokenizer_config.json in the
same words, and is read the same way.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pegasus_zh.text.added_tokens import Added
from pegasus_zh.text.tokenizer_json import check_end, check_same, check_wordpieces, prefix_of, read_fast
from training.files.atomic import read_json
from training.files.errors import AGAIN, DataError
from training.telling import tell

SETTINGS_FILE, FAST_FILE = "tokenizer_config.json", "tokenizer.json"
_ADDED_FILE, _NAMES_FILE = "added_tokens.json", "special_tokens_map.json"
_MODEL_FILES = ("config.json", "generation_config.json")  # the second counts more
_OWN_KEY = "pegasus_zh"
_MARKS = {"start": "decoder_start_token_id", "end": "eos_token_id", "pad": "pad_token_id"}
_BERT_CLASSES = ("BertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")  # one class of transformers
_LOWERING_CLASSES = (*_BERT_CLASSES, "RoFormerTokenizer")  # by default
_T5_CLASSES = ("T5Tokenizer", "MT5Tokenizer")
# What transformers takes where nothing names a class.
_CLASSES = dict.fromkeys(("bert", "electra", "ernie", "nezha", "megatron-bert"), _BERT_CLASSES[0]) | {
    "roformer": "RoFormerTokenizer",
    "t5": _T5_CLASSES[0],
    "mt5": _T5_CLASSES[0],
}
_SENTINEL = "<extra_id_{}>"


@dataclass(frozen=True)
class Settings:
    """What the files beside a vocabulary say; the defaults are those of a folder that has none."""

    cased: bool = False  # vocab.txt: capitals and combining marks are kept
    plain: bool = False  # vocab.txt: BERT's own rules, without jieba's words
    one_prefix: bool = False  # spiece.model: behind an added token no word begins, unless there is a blank
    added: tuple[Added, ...] = ()
    start: int | None = None  # what the decoder is started with; None: what the kind of tokenizer has
    end: int | None = None  # what a target ends with
    pad: int | None = None

    def about(self) -> dict[str, Any]:
        """The tokenizer_config.json that says so; {} where there is nothing to say."""
        marks = {name: getattr(self, name) for name in _MARKS if getattr(self, name) is not None}
        told = {str(token.id): {k: v for k, v in vars(token).items() if k != "id"} for token in self.added}
        return (
            ({"do_lower_case": False} if self.cased else {})
            | ({"tokenizer_class": _BERT_CLASSES[0]} if self.plain else {})
            | ({"legacy": False} if self.one_prefix else {})
            | ({"added_tokens_decoder": told} if told else {})
            | ({_OWN_KEY: marks} if marks else {})
        )


class SideFiles:
    """The files of one folder, each an empty object where it is not there. Raises DataError for one that is no JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings, self.ids, self.names, self.model, self.generation = (
            read_json(folder / name) if (folder / name).is_file() else {}
            for name in (SETTINGS_FILE, _ADDED_FILE, _NAMES_FILE, *_MODEL_FILES)
        )
        self.fast = read_fast(folder / FAST_FILE) if (folder / FAST_FILE).is_file() else {}
        for key, kind in (("added_tokens_decoder", dict), ("extra_ids", int)):
            if not isinstance(self.settings.get(key) or kind(), kind):
                raise DataError(f"{folder / SETTINGS_FILE}: {key} is {json.dumps(self.settings[key]):.80}; {AGAIN}")
        if self.settings.get("truncation_side", "right") != "right":
            tell(
                f"{folder / SETTINGS_FILE}: truncation_side is {json.dumps(self.settings['truncation_side'])}; here "
                "texts that are too long lose their end all the same"
            )

    @property
    def tokenizer_class(self) -> str:
        """As transformers finds it: by its name, else by the kind of model; "" where nothing says it."""
        named = self.settings.get("tokenizer_class") or self.model.get("tokenizer_class")
        return str(named or _CLASSES.get(str(self.model.get("model_type")), "")).removesuffix("Fast")

    def marks(self) -> dict[str, int]:
        """Which tokens begin and end a target and which is padding, where the folder says so."""
        own = self.settings.get(_OWN_KEY) or {}
        found = {name: (SETTINGS_FILE, own[name]) for name in _MARKS if name in own}
        if self.model.get("is_encoder_decoder") or _MARKS["start"] in self.model:  # an encoder's do not end anything
            for file, about in zip(_MODEL_FILES, (self.model, self.generation), strict=True):
                found |= {name: (file, about[key]) for name, key in _MARKS.items() if about.get(key) is not None}
        return {name: self._mark(_MARKS[name], *given) for name, given in found.items()}

    def _mark(self, key: str, file: str, value: Any) -> int:
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if type(value) is not int or value < 0:
            wrong = "several, and one is written here" if isinstance(value, list) else "no id"
            raise DataError(f"{self.folder / file}: {key} is {json.dumps(value)}: {wrong}; write one there")
        return value

    @property
    def rows(self) -> float:
        """Of the embedding; infinitely many where no config.json says it."""
        rows = self.model.get("vocab_size")
        return rows if type(rows) is int else float("inf")

    def rules(self, has_words: bool) -> tuple[bool, bool]:
        """(cased, plain) of a vocab.txt. Raises DataError for rules that are not BERT's."""
        for file, about in ((_NAMES_FILE, self.names), (SETTINGS_FILE, self.settings)):
            for name, only in _NAMED.items():
                token = about.get(name)
                token = token.get("content") if isinstance(token, dict) else token
                if token not in (None, only):
                    raise DataError(f"{self.folder / file}: {name} is {json.dumps(token)}; only {only} can be read")
        known = self.tokenizer_class in _LOWERING_CLASSES or (self.fast.get("model") or {}).get("type") != "WordPiece"
        if not known:
            check_wordpieces(self.fast, self.folder / FAST_FILE)
        normal = self.fast.get("normalizer") or {}
        lower = self.settings.get("do_lower_case", True if known else normal.get("lowercase", True))
        strip = self.settings.get("strip_accents", None if known else normal.get("strip_accents"))
        if type(lower) is not bool:
            raise DataError(
                f"{self.folder / SETTINGS_FILE}: do_lower_case is {json.dumps(lower)}; write true or false, without "
                "quotation marks"
            )
        if strip not in (None, lower):
            raise DataError(
                f"{self.folder / SETTINGS_FILE}: do_lower_case is {json.dumps(lower)} and strip_accents "
                f"{json.dumps(strip)}; only both, or neither, can be read"
            )
        if self.settings.get("tokenize_chinese_chars", True) is not True:
            raise DataError(
                f"{self.folder / SETTINGS_FILE}: tokenize_chinese_chars is false: not BERT's rules for Chinese; set it "
                "to true"
            )
        return not lower, not has_words and (not known or self.tokenizer_class in _BERT_CLASSES)

    def added(self, vocabulary: Sequence[str], own: Mapping[str, int], sentinels: bool = False) -> tuple[Added, ...]:
        """The added tokens, by id. vocabulary: in the order of ids. own: special tokens that every tokenizer of the
        kind has, and no text makes. sentinels: T5's may stand without ids. Raises DataError for files that disagree."""
        found: dict[int, Added] = {}
        for file, token in chain(self._with_ids(), self._by_name(vocabulary, sentinels)):
            where = self.folder / file
            other = vocabulary[token.id] if token.id < len(vocabulary) else None
            if other is None and token.id in found:
                other = found[token.id].content
            if other not in (None, token.content):
                raise DataError(f"{where}: id {token.id} is {token.content!r}, and {other!r} beside it; {_ONE}")
            if own.get(token.content) != token.id:
                found.setdefault(token.id, token)
        if lost := [token for token in found.values() if token.id >= self.rows]:
            tell(
                f"{self.folder}: {len(lost)} added tokens such as {lost[0].content!r} are left out: the embedding has "
                f"{self.rows:,} rows, none for them"
            )
        return tuple(found[i] for i in sorted(found) if i < self.rows)

    def _with_ids(self) -> Iterator[tuple[str, Added]]:
        named = {content for _, content in self._names()}
        for entry in self.fast.get("added_tokens") or []:
            yield FAST_FILE, self._token(FAST_FILE, entry.get("id"), entry)
        for i, entry in (self.settings.get("added_tokens_decoder") or {}).items():
            yield SETTINGS_FILE, self._token(SETTINGS_FILE, int(i) if i.isdigit() else i, entry)
        for content, i in self.ids.items():
            entry = {"content": content, "special": content in named, "normalized": content not in named}
            yield _ADDED_FILE, self._token(_ADDED_FILE, i, entry)

    def _names(self) -> Iterator[tuple[str, str]]:
        """(file, token) of those that are called by their name alone."""
        lists = ("additional_special_tokens", "extra_special_tokens")
        for file, about in ((_NAMES_FILE, self.names), (SETTINGS_FILE, self.settings)):
            for key, value in about.items():
                if not (key.endswith("_token") or key in lists) or key.startswith("add_"):
                    continue
                values = value.values() if key in lists and isinstance(value, dict) else value
                values = [*values] if isinstance(values, (list, type({}.values()))) else [values]
                for name in values:
                    name = name.get("content") if isinstance(name, dict) else name
                    if isinstance(name, str):
                        yield file, name

    def _by_name(self, vocabulary: Sequence[str], sentinels: bool) -> Iterator[tuple[str, Added]]:
        names = dict((content, file) for file, content in self._names())
        known = {token.content for _, token in self._with_ids()}
        missing = {content: file for content, file in names.items() if content not in known}
        ids = {token: i for i, token in enumerate(vocabulary)} if missing else {}
        called = sum(name.startswith("<extra_id_") for name in missing)
        count = max(called, self.settings.get("extra_ids") or 0) if sentinels and not known else 0
        ids |= {_SENTINEL.format(k): len(vocabulary) + count - 1 - k for k in range(count)}
        for content, file in ({_SENTINEL.format(k): SETTINGS_FILE for k in range(count)} | missing).items():
            if content not in ids:
                raise DataError(
                    f"{self.folder / file}: {content!r} has no id: copy {_ADDED_FILE} or {FAST_FILE} from the folder "
                    "that the tokenizer was saved in"
                )
            yield file, Added(ids[content], content, special=True)

    def _token(self, file: str, i: Any, entry: Mapping[str, Any]) -> Added:
        content = entry.get("content")
        if type(i) is not int or i < 0 or not isinstance(content, str) or not content:
            raise DataError(f"{self.folder / file}: an added token {content!r} of id {i!r}; {_ONE}")
        entry = {"normalized": not entry.get("special"), **entry}
        flags = [field.name for field in fields(Added) if field.default is False]
        return Added(i, content, **{name: entry.get(name) is True for name in flags})


_ONE = "put the files of one tokenizer there"
_NAMED = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}  # what frames a text here, and stands in it


def settings_of_wordpieces(
    file: Path,
    vocabulary: Sequence[str],
    marks: Mapping[str, int],
    own: Mapping[str, int],
    never: set[int],
    has_words: bool,
) -> Settings:
    """What lies beside a vocab.txt. Raises DataError.

    marks: start, end and pad by the vocabulary itself. own: special tokens that it always has. never: the ids that no
    text makes. has_words: words of several Chinese characters, as T5-PEGASUS has.
    """
    beside = SideFiles(file.parent)
    check_same(beside.fast, vocabulary, file.with_name(FAST_FILE), file)
    found = beside.marks()
    if (end := found.get("end")) is not None and [*vocabulary[end : end + 1]] == ["[unused1]"]:
        # T5Config's default, which nobody chose for this vocabulary. T5-PEGASUS's texts do not begin with padding, too.
        names = ["end", "start"] if has_words and found.get("start") == marks["pad"] else ["end"]
        ids = " and ".join(f"{name}s with {vocabulary[marks[name]]}" for name in names)
        tell(f"{file}: eos_token_id is {end}, which is [unused1] here and not heeded: a text {ids}")
        found = {name: i for name, i in found.items() if name not in names}
    cased, plain = beside.rules(has_words)
    settings = Settings(cased=cased, plain=plain, added=beside.added(vocabulary, own))
    return _marked(settings, found, marks, never, beside.folder)


def settings_of_pieces(file: Path, pieces: Sequence[str]) -> Settings:
    """What lies beside a spiece.model with padding, </s> and <unk> at 0, 1, 2. Raises DataError."""
    beside = SideFiles(file.parent)
    if file.name != FAST_FILE:
        check_same(beside.fast, pieces, file.with_name(FAST_FILE), file)
    elif beside.tokenizer_class not in _T5_CLASSES:  # which adds the end token by itself
        check_end(beside.fast, pieces[1], file)
    added = beside.added(pieces, {pieces[i]: i for i in (0, 1, 2)}, sentinels=True)
    one_prefix = prefix_of(beside.fast) == "first" or (not beside.fast and beside.settings.get("legacy") is False)
    settings = Settings(one_prefix=one_prefix and bool(added), added=added)
    return _marked(settings, beside.marks(), {"start": 0, "end": 1, "pad": 0}, {0, 1}, beside.folder)


def _marked(
    settings: Settings, found: Mapping[str, int], own: Mapping[str, int], never: set[int], folder: Path
) -> Settings:
    """With those marks that are not the vocabulary's own. Raises DataError for padding that texts or their ends are,
    which would not be read."""
    others = {name: i for name, i in found.items() if i != own[name]}
    pad, end = others.get("pad"), others.get("end", own["end"])
    if others.get("pad", own["pad"]) == end:
        raise DataError(f"{folder}: eos_token_id and pad_token_id are both {end}: no end would be seen; give two ids")
    if pad is not None and pad not in never | {token.id for token in settings.added if token.special}:
        raise DataError(f"{folder}: pad_token_id is {pad}, which texts hold: give the id of a token of its own")
    return replace(settings, start=others.get("start"), end=others.get("end"), pad=pad)
