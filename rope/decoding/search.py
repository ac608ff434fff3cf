"""How the next tokens are chosen, and which ids begin and end a text."""

import math
from dataclasses import dataclass


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
        if self.beams < 1:
            raise ValueError(f"beams = {self.beams}: give 1 (greedy) or more")
        if self.temperature is not None and (not 0 < self.temperature < math.inf or self.beams > 1):
            raise ValueError("a temperature is a number above 0, and goes with beams = 1: give one of the two")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty = {self.length_penalty}: give a number, or None")
        if self.temperature is None and (self.top_k or self.top_p != 1):
            raise ValueError("top_k and top_p restrict what is drawn at random: give a temperature too, e.g. 1.0")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"top_k = {self.top_k}, top_p = {self.top_p}: top_k is 0 or more, top_p in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The ids that begin and end a text, and fill up what is after."""

    start: int
    end: int
    pad: int = 0
