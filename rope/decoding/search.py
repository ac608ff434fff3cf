"""How the next tokens are chosen, and which ids begin and end a text, or may not be in it."""

from dataclasses import dataclass

from training.ranges import check_ranges


@dataclass(frozen=True, kw_only=True)
class Search:
    """How the next tokens are chosen: greedily unless something else is asked for."""

    beams: int = 1
    """Hypotheses kept for each text; with 1, greedy."""
    length_penalty: float | None = 1.0
    """Finished hypotheses are compared by log-probability / length^this (Wu et al. 2016, without coverage), as
    transformers does. None: as T5-PEGASUS does, by log-probability alone; a hypothesis that ends is the answer if it is
    the best at that step, and is dropped if not, its place with it."""
    temperature: float | None = None
    """Draw tokens at random, from the probabilities to the power 1 / temperature. Not with beams."""
    top_k: int = 0
    """Draw among the k most probable; 0: among all."""
    top_p: float = 1.0
    """Draw among the fewest tokens that have this much of the probability together (Holtzman et al. 2020)."""
    min_length: int = 0
    """Do not end before there are so many ids, the start token among them, as transformers counts."""
    no_repeat_ngram_size: int = 0
    """Never write so many ids in a row that stand there already; 0: whatever comes."""
    repetition_penalty: float = 1.0
    """Divide the scores of ids that stand there already by this, or multiply them where negative."""
    answers: int = 1
    """Texts for each input: the best of the beams, or so many draws."""

    def __post_init__(self):
        # Beyond these temperatures and penalties nothing changes but that float32 overflows.
        check_ranges(self, beams=1, top_k=0, top_p=0, temperature=(1e-6, 1e6), length_penalty=(-10, 10))
        check_ranges(self, min_length=0, no_repeat_ngram_size=0, repetition_penalty=(1e-2, 1e2), answers=1)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.temperature is not None and self.beams > 1:
            raise ValueError(
                f"temperature is {self.temperature}: drawing goes with one beam; leave out --temperature or --beams"
            )
        for name, given in (("top_k", self.top_k), ("top_p", self.top_p % 1)):
            if self.temperature is None and given:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}: it restricts what is drawn at random: give --temperature 1.0 too")
        if self.answers > 1 and self.temperature is None and (self.beams < self.answers or self.length_penalty is None):
            raise ValueError(
                f"answers is {self.answers}: give --temperature 1.0, to draw them, or --beams {self.answers} with a "
                "number as --length-penalty"
            )


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids that begin and end a text, and fill up what is after; those it is to begin with, and may not have."""

    start: int
    end: int
    pad: int = 0
    first: tuple[int, ...] = ()
    """What every text begins with, whatever the model says: at no cost, but it counts in the length."""
    never: tuple[tuple[int, ...], ...] = ()
    """Words that are not written, each one id or several in a row."""

    def __post_init__(self):
        if (self.end,) in self.never:
            raise ValueError(f"the end token {self.end} is forbidden: texts are made longer by min_length")
        if not all(self.never) or {self.end, self.pad} & {*self.first}:
            raise ValueError(f"a forbidden word has no ids, or {self.first} ends a text: give ids of words")
