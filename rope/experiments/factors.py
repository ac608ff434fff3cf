"""LongRoPE's factors, what the frequency of each pair is divided by, found by search (Ding et al. 2024,
arXiv 2402.13753, section 3): sets of factors are changed at random, and those that read text best go on.

As there, it begins with what others would do (interpolation, a larger base, YaRN), and factors do not fall from a pair
to a slower one. Smaller than there: no first positions that stay as they are, no crossing of two sets, and dozens of
sets tried instead of thousands.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.files.atomic import read_json, write_json

GENERATIONS, CHILDREN, PARENTS = 6, 8, 4
CHANGED = 0.3  # of a child's factors
BEYOND = 1.25  # factors go up to so many times what the length asks for


def find_factors(
    loss: Callable[[np.ndarray], float], starts: Sequence[np.ndarray], most: float, file: Path
) -> tuple[float, ...]:
    """The factors, one for each pair, with the least loss of all tried; none is below 1 or above 1.25 `most`.

    starts: what it begins with. file: keeps what was tried after each generation, so that a search that was stopped
    goes on, and one that is done is only read.
    """
    tried: list[dict[str, Any]] = read_json(file)["tried"] if file.exists() else []
    done = tried[-1]["generation"] if tried else -1
    for generation in range(done + 1, GENERATIONS + 1):
        children = children_of(_best(tried), generation, most) if generation else starts
        tried += [{"generation": generation, "loss": loss(x), "factors": [*map(float, x)]} for x in children]
        write_json(file, {"tried": tried})
    return tuple(_best(tried)[0])


def _best(tried: Sequence[dict[str, Any]]) -> list[list[float]]:
    """The factors of the next generation's parents, the best first."""
    return [x["factors"] for x in sorted(tried, key=lambda x: x["loss"])[:PARENTS]]


def children_of(parents: Sequence[Sequence[float]], generation: int, most: float) -> list[np.ndarray]:
    """CHILDREN sets of factors, each a parent with some factors moved, by up to a quarter of the way on the logarithmic
    scale from 1 to the largest. The same for the same generation."""
    random, top = np.random.default_rng(generation), np.log(BEYOND * most)
    made = []
    for number in range(CHILDREN):
        parent = np.log(parents[number % len(parents)])
        moved = (random.random(len(parent)) < CHANGED) * random.uniform(-top / 4, top / 4, len(parent))
        made.append(np.exp(np.maximum.accumulate(np.clip(parent + moved, 0, top))))
    return made
