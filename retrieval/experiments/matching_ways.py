"""The ways of matching anonymised texts that are set side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from retrieval.matching.alignment.methods import METHODS
from retrieval.matching.commands.align import KEY

RANDOM, DRAWN, PLAIN = "random", "drawn", "plain"  # beside the alignments
STARTS = (RANDOM, DRAWN, *METHODS, KEY, PLAIN)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to come to scores of held-out pairs."""

    start: str = "context"
    """How numbers' rows begin. random: the whole encoder is drawn; drawn: only rows are; an alignment, or the key;
    plain: the text itself is read."""
    taught: bool = False
    """The encoder has learned to match labelled pairs of plain text before."""
    labels: bool = True
    """It is trained on the labelled pairs; else it scores as it begins."""
    pretrained: bool = False
    """Hidden tokens of all anonymised texts are guessed first."""
    unlabelled: bool = False
    """Beside each labelled pair a text without label is learned of."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe."""
    of: str = ""
    """A way whose models are taken, of which the last `average` are averaged, and both orders scored."""
    average: int = 1
    both_orders: bool = False
    members: str = ""
    """A way whose seeds' probabilities are averaged; with `pupil` one model learns these of the held-out pairs."""
    pupil: bool = False
    seeds: int = 1
    """More than one where it is worth it."""
    beside: str = "context"
    """The way it is compared with."""

    @property
    def needs(self) -> list[str]:
        """Ways that it is made of."""
        return [name for name in (self.of, self.members) if name]

    @property
    def trains(self) -> bool:
        return self.labels and not self.of and (self.pupil or not self.members)


KEPT = 3  # checkpoints of each run, for the ways whose weights are averaged
OVERLAP = "overlap"  # the share of numbers that both texts have: nothing is trained
_POST = Way(start="rank", unlabelled=True, changes={"shared": False, "masks": "tokens"}, beside="the post")
_PART = Way()
_MASKS = replace(_PART, changes={"masks": "tokens"})
_BEST = Way(taught=True, changes={"rare": True}, seeds=3, beside="the post")
WAYS: dict[str, Way] = {
    OVERLAP: Way(start=DRAWN, beside="the post"),
    # What numbers' rows begin as; labels alone are learned.
    "random": Way(start=RANDOM),
    "random, pretrained": Way(start=RANDOM, pretrained=True),
    "drawn": Way(start=DRAWN),
    **{name: Way(start=name, seeds=3 if name == "context" else 1) for name in (*METHODS, KEY, PLAIN)},
    # The post's recipe: hidden tokens and texts without label in every batch, and no marks where texts share a number.
    "the post": _POST,
    "the post, random": replace(_POST, start=RANDOM),
    "the post, context": replace(_POST, start="context"),
    # One part more or less.
    "without marks": replace(_PART, changes={"shared": False}),
    "hidden tokens": _MASKS,
    "hidden spans": replace(_PART, changes={"masks": "spans"}, beside="hidden tokens"),
    "unlabelled": replace(_MASKS, unlabelled=True, beside="hidden tokens"),
    "sides": replace(_PART, changes={"masks": "tokens", "sides": 0.1}, beside="hidden tokens"),
    "pretrained": replace(_PART, pretrained=True),
    "taught": replace(_PART, taught=True),
    "taught, no labels": replace(_PART, taught=True, labels=False),
    "rare": replace(_PART, changes={"rare": True}),
    "adversary": replace(_PART, changes={"adversary": 0.5}),
    "closure": replace(_PART, changes={"closure": True}),
    "averaged": replace(_PART, of="context", average=KEPT, seeds=3),
    "both orders": replace(_PART, of="context", both_orders=True, seeds=3),
    "three seeds": replace(_PART, members="context"),
    "pupil": replace(_PART, members="context", pupil=True),
    # All that helps.
    "best": _BEST,
    "best, averaged": replace(_BEST, of="best", average=KEPT, both_orders=True),
    "best, three seeds": replace(_BEST, members="best, averaged", seeds=1),
    "best, pupil": replace(_BEST, members="best, averaged", pupil=True, seeds=1),
    "best, plain": replace(_BEST, start=PLAIN, seeds=1),
}
