"""Context's matching, refined by the encoder of plain text itself: it reads numbers as they are matched so far, each a
mixture of tokens, guesses hidden ones, and what it expects at a number's places counts beside what stands there.

Letters: n numbers, m tokens, B texts, T positions, H hidden places.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder, rows_of_texts
from retrieval.matching.alignment.context import TEMPERATURES, Context, balanced, by_context, sizes_of
from retrieval.matching.alignment.statistics import Statistics
from retrieval.matching.hiding import RATE
from retrieval.matching.start import reading_numbers
from rope.encoder import roformer

ROUNDS, TURNS = 2, 2  # of the encoder, and in each of context with what it expects
WEIGHT = 1.0  # of a nat, beside likenesses / temperature
DOUBT = 3  # places of each number, added to those that were hidden, at which the encoder expected what is usual
MOST, ROWS, LENGTH = 10_000, 256, 64  # texts that are read in a round, at once, and ids of each
Expect = Callable[[np.ndarray, int], np.ndarray]  # matching [n, m], round -> nats float32 [n, m]


def by_likelihood(
    numbers: Statistics,
    tokens: Statistics,
    expect: Expect,
    told: Callable[[int, int], object] = lambda turn, turns: None,
) -> np.ndarray:
    """float32 [n, m], shares of a number that are a token: each row sums to 1. told: of each turn, and how many."""
    n, m = len(numbers.counts), len(tokens.counts)
    before = len(sizes_of(n, m))
    turns = before + ROUNDS * TURNS
    match, context = by_context(numbers, tokens, lambda turn, _: told(turn, turns)), Context(numbers, tokens)
    for turn in range(ROUNDS * TURNS):
        if turn % TURNS == 0:
            expected = WEIGHT * expect(match, turn // TURNS)
        match = balanced(context.likeness(match, np.arange(n), np.arange(m)) / TEMPERATURES[-1] + expected)
        told(before + turn + 1, turns)
    return match


def expectation(source: TextEncoder, alphabet: PegasusTokenizer, texts: Sequence[str]) -> Expect:
    """By an encoder of plain text: how much likelier than usual each of its tokens is at a number's places, the mean of
    log-probabilities. texts: of numbers between blanks; which are read, and what is hidden, the round draws. Raises
    ValueError for an encoder without head."""
    first, head = len(SPECIALS), roformer.head_of(source.model)
    learned = source.config.positions == "learned"
    most = min(LENGTH, source.config.max_positions) if learned else LENGTH

    def expect(match: np.ndarray, number: int) -> np.ndarray:
        n, m = match.shape
        random = np.random.default_rng(number)
        drawn = sorted((texts[i] for i in random.permutation(len(texts))[:MOST]), key=len)  # rows of like length
        reader = reading_numbers(source, alphabet, match)
        model, word, bias = jax.device_put((reader.model, source.model.embeddings.word[:m], head.bias[:m]))
        total, count = np.zeros((n, m), np.float32), np.zeros(n, np.float32)
        for begin in range(0, len(drawn), ROWS):
            ids, segments = rows_of_texts(alphabet, drawn[begin : begin + ROWS], most)
            more = (0, ROWS - len(ids)), (0, min(-ids.shape[1] % 8, most - ids.shape[1]))  # few shapes
            ids, segments = np.pad(ids, more), np.pad(segments, more)
            known = random.permutation(np.argwhere(ids >= first))
            hidden = known[: int(np.ceil(RATE * len(known)))]
            which = ids[*hidden.T] - first
            ids[*hidden.T] = alphabet.mask_id
            places = np.zeros((int(RATE * ids.size) + 1, 2), np.int32)
            places[: len(hidden)] = hidden
            found = np.asarray(_guess(model, word, bias, ids, segments, places, config=reader.config))[: len(hidden)]
            one = sparse.csr_array((np.ones(len(which), np.float32), (which, np.arange(len(which)))), (n, len(which)))
            total += one @ found  # on the host, in order: a device may add in any
            count += np.bincount(which, minlength=n)
        usual = total.sum(0) / max(count.sum(), 1)
        return (total - count[:, None] * usual) / (count[:, None] + DOUBT)

    return expect


@partial(jax.jit, static_argnames="config")
def _guess(
    model: roformer.RoFormer,
    word: jax.Array,
    bias: jax.Array,
    ids: jax.Array,
    segments: jax.Array,
    places: jax.Array,
    *,
    config: roformer.RoFormerConfig,
) -> jax.Array:
    """Log-probabilities float32 [H, m] of tokens, whose rows and biases are given, at places [H, 2] of ids [B, T]."""
    hidden = roformer.encode(model, ids, segments, config)[places[:, 0], places[:, 1]]
    guessed = roformer.before_logits(model, hidden[None], config)[0].astype(jnp.float32)
    return jax.nn.log_softmax(guessed @ word.T + bias[None])
