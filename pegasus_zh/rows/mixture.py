"""Several sets of rows in one stream by whole weights: which row of which set the n-th of it is, without a state."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

MOST = 10_000  # of all weights together: the places of a round


@dataclass(frozen=True)
class Round:
    """The shortest stream whose composition is just that of the weights; it comes again and again.

    Of the first n rows of the stream, for any n, each set has its share of n to less than one row.
    """

    weights: tuple[int, ...]
    sets: np.ndarray  # int [places]: whose turn it is
    before: np.ndarray  # int [places]: how often it was that set's turn before, in this round

    @staticmethod
    def of(weights: Sequence[int]) -> "Round":
        """From weights of 1 or more, at most MOST in all when divided by what divides them all."""
        weights = lowest_terms(weights)
        places = sum(weights)
        had, sets, before = [0] * len(weights), [], []
        for place in range(1, places + 1):
            # Tijdeman's assignment: of those that may have one more row and stay below their share of `place` + 1, the
            # one that must have it soonest. Turn t of weight w of W is due by place (t + 1 - 1/(2n - 2)) W / w, n sets.
            slack = 2 * max(len(weights) - 1, 1)
            ready = [k for k, w in enumerate(weights) if slack * (w * place - places * had[k]) >= places]
            turn = min(ready, key=lambda k: ((slack * (had[k] + 1) - 1) / weights[k], k))
            sets.append(turn)
            before.append(had[turn])
            had[turn] += 1
        return Round(weights, np.array(sets), np.array(before))

    def __getitem__(self, n: int) -> tuple[int, int]:
        """Of row n of the stream: its set, and how many rows of that set come before it."""
        rounds, place = divmod(n, len(self.sets))
        turn = int(self.sets[place])
        return turn, rounds * self.weights[turn] + int(self.before[place])


def lowest_terms(weights: Sequence[int]) -> tuple[int, ...]:
    """The same shares in the smallest whole numbers: 4 2 2 is 2 1 1."""
    return tuple(weight // gcd(*weights) for weight in weights)
