"""What tokenizing loses: unknown ids, and texts that are cut. Counted beside any tokenizer, and told in one line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from pegasus_zh.text.tokenizers import Tokenizer
from training.telling import tell

MANY = 0.05  # of the ids: from there on the vocabulary is not that of the texts
_KEPT, _SHOWN = 50, 8  # unknown characters
_TOGETHER = 1 << 20  # characters of texts that are counted at once


@dataclass
class Losses:
    """Of some texts."""

    ids: int = 0
    unknown: int = 0  # of these
    strangers: int = 0  # texts of unknown ids alone
    cut_sources: int = 0
    cut_targets: int = 0
    characters: dict[str, int] = field(default_factory=dict)  # that are unknown, and how often they came

    def __add__(self, other: "Losses") -> "Losses":
        names = ("ids", "unknown", "strangers", "cut_sources", "cut_targets")
        total = Losses(**{name: getattr(self, name) + getattr(other, name) for name in names})
        for characters in (self.characters, other.characters):
            for character, count in characters.items():
                total.characters[character] = total.characters.get(character, 0) + count
        return total

    def commonest(self, most: int = _KEPT) -> dict[str, int]:
        """The unknown characters that came most often."""
        return dict(sorted(self.characters.items(), key=lambda item: (-item[1], item[0]))[:most])

    @property
    def share(self) -> float:
        """Of ids that are unknown."""
        return self.unknown / max(self.ids, 1)

    def line(self, targets: bool = False) -> str:
        """What was lost, in words; `targets`: were there any?"""
        cut = (
            f"{self.cut_sources:,} sources and {self.cut_targets:,} targets"
            if targets
            else f"{self.cut_sources:,} texts"
        )
        strangers = f", {self.strangers:,} texts of nothing else" if self.strangers else ""
        return f"{self.share:.2%} of {self.ids:,} ids unknown{strangers}; {cut} cut"

    def warning(self) -> str:
        """One line where more than a twentieth is unknown, with the commonest; else nothing."""
        if self.share <= MANY:
            return ""
        shown = ", ".join(f"{character} ({count:,})" for character, count in self.commonest(_SHOWN).items())
        return (
            f"warning: {self.share:.1%} of the ids are unknown, most often {shown or 'long words'}: the vocabulary is "
            "not that of these texts; take another, or one of your own, which scripts.pretrain (of an encoder "
            "scripts.pretrain_encoder) makes of all --data without --tokenizer, as of --data a.jsonl 'b/*.txt' "
            "--vocabulary 50000 (docs/pretrain.md, Vocabulary)"
        )

    def report_any(self, what: str) -> None:
        """The same, if an id is unknown or a text is cut."""
        if self.unknown or self.cut_sources or self.cut_targets:
            self.report(what)

    def report(self, what: str, targets: bool = False) -> None:
        """Tells both."""
        tell(f"{what}: {self.line(targets)}")
        if warning := self.warning():
            tell(warning)


def counting(tokenizer: Tokenizer) -> tuple[Tokenizer, Callable[[], Losses]]:
    """The same tokenizer, and what says what has been lost by using it so far."""
    made = _Counting(tokenizer)
    return cast(Tokenizer, made), made.losses


class _Counting:
    """Whatever the tokenizer has, it has; a protocol's child would inherit methods that do nothing."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer, self._losses = tokenizer, Losses()
        self._unread: list[str] = []  # texts with unknown ids, whose characters are not counted yet
        self._characters = 0  # of these
        self._marks = len(tokenizer.frame_source([], 1 << 20))
        self.unk_id, self.vocab_size = tokenizer.unk_id, tokenizer.vocab_size  # asked for at every text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> list[int]:
        ids, losses = self._tokenizer.encode(text), self._losses
        losses.ids += len(ids)
        if unknown := ids.count(self.unk_id):
            losses.unknown += unknown
            losses.strangers += unknown == len(ids)
            self._unread.append(text)
            self._characters += len(text)
            if self._characters > _TOGETHER:
                self._read()
        return ids

    def frame_source(self, ids: list[int], max_length: int) -> list[int]:
        framed = self._tokenizer.frame_source(ids, max_length)
        self._losses.cut_sources += len(framed) < len(ids) + self._marks
        return framed

    def frame_target(self, ids: list[int], max_length: int) -> list[int]:
        framed = self._tokenizer.frame_target(ids, max_length)
        self._losses.cut_targets += len(framed) <= len(ids)
        return framed

    def losses(self) -> Losses:
        self._read()
        return self._losses

    def _read(self) -> None:
        """Counts the unknown characters of many texts at once: one by one it took a tenth of the time of examples."""
        codes = np.frombuffer("".join(self._unread).encode("utf-32-le", "surrogatepass"), np.uint32)
        counts, characters = np.bincount(codes), self._losses.characters
        is_unknown = _is_unknown.setdefault(self._tokenizer, {})
        for code in np.flatnonzero(counts).tolist():
            character = chr(code)
            if character not in is_unknown:
                is_unknown[character] = self.unk_id in self._tokenizer.encode(character)
            if is_unknown[character]:
                characters[character] = characters.get(character, 0) + int(counts[code])
        self._unread, self._characters = [], 0


_is_unknown: WeakKeyDictionary[Tokenizer, dict[str, bool]] = WeakKeyDictionary()  # characters looked up so far
