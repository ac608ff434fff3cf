"""Vocabularies from raw text: the seed's words, characters and pieces, or a sentencepiece model with mT5's ids.

T5-PEGASUS's 50,000 tokens were chosen by cutting the pre-training corpus with jieba and keeping the most frequent
tokens after Chinese BERT's special ones (Su, https://kexue.fm/archives/8209). The same recipe at any size: first the
single characters, which leave almost nothing unknown; then whatever is most frequent.
"""

import io
import itertools
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sentencepiece
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, trainers

from pegasus_zh.text.documents import DocumentsConfig, OnBadRecord, read_documents
from pegasus_zh.text.sources import find_sources
from pegasus_zh.text.stamps import changes, stamps
from pegasus_zh.text.tokenizer_files import keep_tokenizer, load_tokenizer
from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer, SentencePieceTokenizer, Tokenizer
from pegasus_zh.text.wordpieces import LONGEST_WORD, UNK, split_plain, words
from training.files.atomic import read_json, write_json
from training.files.errors import DataError
from training.ranges import check_ranges
from training.telling import tell

VocabularyKind = Literal["pegasus", "characters", "sentencepiece"]
_LETTERS = [*string.digits, *string.ascii_lowercase]
_LETTER_PIECES = [*_LETTERS, *("##" + letter for letter in _LETTERS)]
_ASCII = [*string.punctuation, *_LETTER_PIECES]  # with these no ASCII text is ever [UNK]
_COVERAGE = 0.9995  # of all character occurrences; also sentencepiece's advice for Chinese
_MAX_DISTINCT_WORDS = 5_000_000  # bounds the memory of counting, about 100 bytes a word
_LATIN_SAMPLE = 2_000_000  # word occurrences shown to the wordpiece trainer
_LINE = 1000  # characters; sentencepiece drops lines of more than 4192 bytes


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Which tokenizer."""

    tokenizer: str = ""
    """A folder with vocab.txt or spiece.model, or such a file; by default a vocabulary is made from --data."""
    tokenizer_kind: VocabularyKind = "pegasus"
    """Which vocabulary is made: words and wordpieces (T5-PEGASUS, RoFormer, WoBERT), the same without words (BERT,
    RoFormer-char), or SentencePiece (mT5 alone)."""
    vocabulary: int = 50_000
    """Entries of the vocabulary that is made, at most."""

    def __post_init__(self):
        check_ranges(self, vocabulary=1)

    def of(self, documents: DocumentsConfig, folder: Path) -> Tokenizer:
        """The one that is given, or that in `folder`, which is first made from the documents if it is not there."""
        if self.tokenizer:
            return load_tokenizer(self.tokenizer)
        return make_tokenizer(
            self.tokenizer_kind,
            self.vocabulary,
            documents.data,
            folder,
            field=documents.field,
            on_bad_record=documents.on_bad_record,
        )


def make_tokenizer(
    kind: VocabularyKind,
    size: int,
    data: Sequence[str],
    folder: Path,
    *,
    field: str = "text",
    on_bad_record: OnBadRecord = "stop",
) -> Tokenizer:
    """The tokenizer in `folder`, which is first made from the documents (see documents.read_documents)
    if it is not there.

    Raises DataError where the one in `folder` was made with other settings or from other documents.
    """
    asked, sources = {"kind": kind, "vocabulary": size, "field": field}, find_sources(data)
    made = folder / "made.json"
    if not made.exists():  # written last
        tell(f"{folder}: making a vocabulary of at most {size:,} entries from the documents")
        texts = read_documents(data, field=field, on_bad_record=on_bad_record, mixed=True)
        tokenizer: Tokenizer
        if kind == "sentencepiece":
            tokenizer = SentencePieceTokenizer(train_sentencepiece(texts, size))
        else:
            tokenizer = PegasusTokenizer(train_pegasus_vocabulary(texts, size, with_words=kind == "pegasus"))
        keep_tokenizer(tokenizer, folder)  # a run there may have another one
        write_json(made, asked | {"documents": stamps(sources)})
    found = read_json(made, "delete the folder")
    was = ""
    if any(found.get(name, value) != value for name, value in asked.items()):
        was = f"made with {_told(found)}, not {_told(asked)}"
    elif other := changes(found.get("documents", stamps(sources)), sources):
        was = f"made from other documents ({other})"
    if was:
        raise DataError(
            f"{folder} holds a vocabulary {was}: give another --folder, or delete {folder}, with the rows and "
            "checkpoints that are beside it"
        )
    return load_tokenizer(folder)


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name != "documents")


def train_pegasus_vocabulary(
    texts: Iterable[str], size: int, max_characters: int = 200_000_000, *, with_words: bool = True
) -> list[str]:
    """A vocabulary for `PegasusTokenizer`, in id order, of `size` tokens (fewer if the texts have no more).

    Chinese BERT's 106 special tokens; ASCII; the characters, most frequent first, up to 0.9995 of all occurrences; then
    jieba's words, Latin pieces and further characters by count. Ties are broken by the string, so the result depends on
    the texts alone. Without words Chinese is written in single characters. One pass over `texts`, which ends after
    `max_characters`: a vocabulary gains nothing from more. Raises `DataError` if `size` cannot hold the special tokens
    and ASCII.
    """
    if size < (least := len(SPECIALS) + len(_ASCII)):
        raise DataError(f"vocabulary size {size} is too small: the special tokens and ASCII alone need {least}")
    counts = _count_words(texts, max_characters)
    characters, latin, candidates = Counter[str](), Counter[str](), Counter[str]()
    for word, count in counts.items():
        letters = "".join(split_plain(word))
        for character in letters:
            characters[character] += count
        if letters and len(word) <= LONGEST_WORD:  # neither space nor control character, nor a long code
            if with_words or word.isascii():
                candidates[word] = count
            if word.isascii() and word.isalnum():
                latin[word] = count
    candidates |= _count_latin_pieces(latin, size // 10)
    candidates |= characters
    ranked = (token for token, _ in _by_count(candidates))
    tokens = itertools.chain(SPECIALS, _ASCII, _most_of(characters), ranked)
    return list(itertools.islice(dict.fromkeys(tokens), size))


def train_sentencepiece(texts: Iterable[str], size: int, max_characters: int = 10_000_000) -> bytes:
    """The bytes of a unigram sentencepiece model (Kudo, 2018) of `size` pieces, fewer if the texts have no more.

    pad 0, </s> 1, <unk> 2 as in mT5, unknown characters as bytes; unlike in mT5 every character stays what it is, so
    that decoding gives back Chinese marks. Of longer texts an even sample of lines, at most
    `max_characters` in all, is used: training takes about ten seconds a million on the one thread that keeps it
    deterministic. Raises `DataError` where the size cannot hold the characters, or there is no text.
    """
    lines = (line[i : i + _LINE] for text in texts for line in text.split("\n") for i in range(0, len(line), _LINE))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(_sample(lines, max_characters)),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            byte_fallback=True,
            normalization_rule_name="identity",  # by default NFKC: ，！？ would become half-width, and stay so
            character_coverage=_COVERAGE,
            num_threads=1,  # more threads would add up floats in another order
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].partition(" or decrease")[0].strip() or "no text to train on"
        raise DataError(f"sentencepiece vocabulary of size {size}: {reason}") from None
    return model.getvalue()


def _count_words(texts: Iterable[str], max_characters: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    floor = read = 0
    for text in texts:
        counts.update(words(text))
        if len(counts) > _MAX_DISTINCT_WORDS:  # numbers and foreign words never end: drop the rarest
            floor += 1
            counts = Counter({word: count for word, count in counts.items() if count > floor})
        if (read := read + len(text)) >= max_characters:
            break
    return counts


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _most_of(characters: Counter[str]) -> Iterator[str]:
    """The most frequent characters that together make up `_COVERAGE` of all occurrences."""
    missing = (1 - _COVERAGE) * characters.total()
    left = characters.total()
    for character, count in _by_count(characters):
        if left <= missing:
            return
        yield character
        left -= count


def _count_latin_pieces(latin: Counter[str], pieces: int) -> Counter[str]:
    """At most so many stems and endings that Latin words and numbers share, with how often the words use them."""
    scale = latin.total() // _LATIN_SAMPLE + 1
    sample = (word for word, count in _by_count(latin) for _ in range(count // scale))
    trained = RustTokenizer(models.WordPiece(unk_token=UNK, max_input_chars_per_word=LONGEST_WORD))
    # The letters are given as "special" so that their ids, by which the trainer breaks ties, are always the same.
    trainer = trainers.WordPieceTrainer(
        vocab_size=len(_LETTER_PIECES) + pieces, special_tokens=_LETTER_PIECES, min_frequency=2, show_progress=False
    )
    trained.train_from_iterator(sample, trainer)
    used: Counter[str] = Counter()
    for word, count in latin.items():
        for piece in trained.model.tokenize(word):
            used[piece.value] += count
    return used


def _sample(lines: Iterable[str], max_characters: int) -> list[str]:
    """Every line, or every 2nd, 4th, ... so that at most `max_characters` are kept: one even pass, no randomness."""
    kept: list[str] = []
    total, stride = 0, 1
    for number, line in enumerate(lines):
        if number % stride == 0:
            kept.append(line)
            total += len(line)
        while total > max_characters and len(kept) > 1:
            kept = kept[::2]
            total, stride = sum(map(len, kept)), 2 * stride
    return kept
