"""How probable it is that the texts of a pair mean the same, by one model or several."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from math import floor, log10

import jax
import numpy as np

from pegasus_zh.text.documents import OnBadRecord
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.batches import framed, limit_of, room_of
from retrieval.matching.matcher import Matcher, Reading
from retrieval.matching.pairs import Pair, Reader, Row, Wanted, read_rows
from retrieval.matching.program import alike
from retrieval.vectors.encoding import lay_out, pack
from rope.encoder.roformer import RoFormer, init
from training.partition import abstract, parts_of, place, replicate, spec
from training.step import compiler_options

WINDOW = 4096  # pairs that are packed together
TOKENS = 4096  # positions of a batch
Window = list[tuple[Row | None, float | None]]  # rows with their probabilities; of one that cannot be used None
Score = Callable[[Sequence[Pair]], np.ndarray]  # pairs -> log-odds float32 [n]


def scorer(matcher: Matcher, both_orders: bool = False) -> Score:
    """Under the mesh that is set."""
    source = matcher.source
    model = place(source.model, abstract(partial(init, source.config, jax.random.key(0))))
    score = partial(scorer_for(source, matcher.reading), model)
    if not both_orders:
        return score

    def both(pairs: Sequence[Pair]) -> np.ndarray:
        turned = [pair._replace(a=pair.b, b=pair.a) for pair in pairs]
        return (score(pairs) + score(turned)) / 2

    return both


def scorer_for(source: TextEncoder, reading: Reading) -> Callable[[RoFormer, Sequence[Pair]], np.ndarray]:
    """The same of any model of this shape, which lies on the mesh."""
    config, tokenizer, most = source.config, source.tokenizer, reading.most
    room = room_of(most + 3, most, limit_of(config))
    programs: dict[tuple[int, int], jax.stages.Compiled] = {}

    def compute(model: RoFormer, ids: np.ndarray, segments: np.ndarray, pairs: int) -> jax.Array:
        """pairs: of a row, at most."""
        rows = [jax.device_put(x, spec("batch", None)) for x in (ids, segments)]
        if (len(ids), pairs) not in programs:
            odds_of = partial(alike, config=config, pairs=pairs, types=reading.shared)
            run = jax.jit(lambda *given: replicate(odds_of(*given)))
            programs[len(ids), pairs] = run.lower(model, *rows).compile(compiler_options=compiler_options())
        return programs[len(ids), pairs](model, *rows)

    def score(model: RoFormer, pairs: Sequence[Pair]) -> np.ndarray:
        odds = np.empty(len(pairs), np.float32)
        for begin in range(0, len(pairs), WINDOW):
            window = pairs[begin : begin + WINDOW]
            ids = [framed(pair, most, tokenizer, reading.rare)[0].tolist() for pair in window]
            packed = pack([len(x) for x in ids], room)
            side_by_side = 1 << (max(map(len, packed)) - 1).bit_length()
            parts = parts_of("batch")
            each = max(TOKENS // room, 1)
            if len(window) < WINDOW:  # the last one's batches are equal; before it all have one shape
                each = -(-len(packed) // -(-len(packed) // each))
            each = -(-each // parts) * parts
            found = []
            for first in range(0, len(packed), each):
                chosen = packed[first : first + each]
                laid = lay_out(chosen, ids, (each, room), tokenizer.pad_id)
                found.append((chosen, compute(model, *laid, side_by_side)))
            for chosen, computed in found:
                values = np.asarray(computed, np.float32)
                for row, members in enumerate(chosen):
                    odds[[begin + n for n in members]] = values[row, : len(members)]
        return odds

    return score


def probabilities(odds: np.ndarray) -> np.ndarray:
    """Of log-odds, float64, which keeps apart what lies within 36 of 0."""
    return 1 / (1 + np.exp(-odds.astype(np.float64)))


def written(probability: float) -> str:
    """With six digits of itself, or of what is missing to 1, so that what is ranked is not tied."""
    least = min(probability, 1 - probability)
    return f"{probability:.{5 - floor(log10(least)) if least else 17}f}"


def ensemble(scores: Sequence[Score], readers: Sequence[Reader], rows: Sequence[Row]) -> np.ndarray:
    """The mean of several models' probabilities [n]; each reads the rows by its own vocabulary."""
    found = [probabilities(score([r.pair(row) for row in rows])) for score, r in zip(scores, readers, strict=True)]
    return np.mean(found, 0)


def predicted(
    path: str, scores: Sequence[Score], readers: Sequence[Reader], on_bad_record: OnBadRecord, bad: Counter[str]
) -> Iterator[Window]:
    """Windows of a file's rows with their probabilities, in order; of a row that cannot be used None."""
    rows: Iterable[Row | None] = read_rows(path, Wanted(numbers=readers[0].numbers, labels=False), on_bad_record, bad)
    rows = iter(rows)
    while window := list(islice(rows, WINDOW)):
        usable = [row for row in window if row]
        found = iter(ensemble(scores, readers, usable).tolist() if usable else [])
        yield [(row, next(found) if row else None) for row in window]
