"""How the next tokens are chosen, and which ids begin and end a text."""

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

    def __post_init__(self):
        # Beyond these temperatures and penalties nothing changes but that float32 overflows.
        check_ranges(self, beams=1, top_k=0, top_p=0, temperature=(1e-6, 1e6), length_penalty=(-10, 10))
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.temperature is not None and self.beams > 1:
            raise ValueError("a temperature goes with beams = 1: give one of the two")
        if self.temperature is None and (self.top_k or self.top_p != 1):
            raise ValueError("top_k and top_p restrict what is drawn at random: give a temperature too, e.g. 1.0")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids that begin and end a text, and fill up what is after."""

    start: int
    end: int
    pad: int = 0
