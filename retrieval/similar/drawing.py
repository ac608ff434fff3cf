"""What is drawn for a text, and what of it is kept."""

from dataclasses import dataclass, field

import tyro

from pegasus_zh.text.lists import many
from pegasus_zh.writing import Writing
from rope.decoding.search import Search
from training.ranges import check_ranges


def _writing() -> Writing:
    """As RoFormer-Sim's scripts have it: 100 draws of at most 64 ids, of 95 % of the probability."""
    return Writing(max_source=64, max_target=64, batch_size=4, search=Search(temperature=1.0, top_p=0.95, answers=100))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How similar questions are drawn, and which are kept."""

    keep: int = 20
    """Of a text's draws those nearest to it, at most so many; of fewer draws all that are left."""
    least: float = -1.0
    """The least cosine to the text that is kept."""
    greatest: float = 1.0
    """The greatest one, to leave out what is all but the same."""
    diversity: float = 0.0
    """0: the nearest. Above: each next one has the largest (1 - this) x its cosine to the text - this x its largest
    cosine to one that is kept already (Carbonell and Goldstein 1998), so that they are unlike each other."""
    change: tuple[str, ...] = ()
    """Words of the text that are to become others: the model does not see them, and what has them is not kept."""
    mask_idxs: tuple[int, ...] = ()
    """Places of the text's ids that the model is not to see, [CLS] being 0, as the published script counts them."""
    writing: tyro.conf.OmitArgPrefixes[Writing] = field(default_factory=_writing)
    """Lengths, batch and search."""

    def __post_init__(self):
        check_ranges(self, keep=1, least=-1, greatest=-1, diversity=0)
        if not self.least < self.greatest <= 1:
            raise ValueError(f"least is {self.least} and greatest {self.greatest}: give cosines, the least first")
        if self.diversity >= 1:
            raise ValueError(f"diversity is {self.diversity}: it must be below 1, where nearness counts for nothing")
        if not all(isinstance(word, str) and word.strip() for word in many(self.change)):
            raise ValueError(f"change is {self.change}: give words, none of them empty")
        if any(isinstance(i, bool) or not isinstance(i, int) or i < 1 for i in self.mask_idxs):
            raise ValueError(f"mask_idxs is {self.mask_idxs}: give whole numbers from 1, [CLS] being 0")
