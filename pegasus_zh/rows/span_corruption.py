"""T5's own objective, as an alternative to pseudo-summaries:
random spans are replaced by sentinels, and are the target.

Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4: 15 % of the tokens, in spans of three on average.
"""

from collections.abc import Sequence

import numpy as np

SENTINELS = range(1, 100)  # [unused1] .. [unused99] of Chinese BERT's layout


def corrupt(
    ids: Sequence[int], random: np.random.Generator, *, density: float = 0.15, span: float = 3.0
) -> tuple[list[int], list[int]]:
    """(source, target): the ids with sentinel i for the i-th span;
    each sentinel with its span, and one more at the end.

    Spans and what lies between them have random lengths of at least 1; the text begins with what is kept. Fewer than
    two ids give no target.
    """
    noise = min(max(round(len(ids) * density), 1), len(ids) - 1)
    if noise < 1:
        return list(ids), []
    spans = min(max(round(noise / span), 1), len(ids) - noise, len(SENTINELS) - 1)
    source: list[int] = []
    target: list[int] = []
    start = 0
    for i, (kept, lost) in enumerate(
        zip(_parts(len(ids) - noise, spans, random), _parts(noise, spans, random), strict=True)
    ):
        source += [*ids[start : start + kept], SENTINELS[i]]
        target += [SENTINELS[i], *ids[start + kept : start + kept + lost]]
        start += kept + lost
    return source, [*target, SENTINELS[spans]]


def _parts(total: int, count: int, random: np.random.Generator) -> list[int]:
    """`count` lengths of at least 1 that add up to `total`, every such division as likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1 if count > 1 else np.array([], int)
    return np.diff(np.concatenate([[0], cuts, [total]])).tolist()
