"""An encoder of plain text that begins to read numbers, its embedding's rows mixed by an alignment, and to match."""

from dataclasses import replace
from typing import cast

import jax
import numpy as np

from pegasus_zh.text.tokenizers import SPECIALS, PegasusTokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alphabet import NO, YES
from rope.encoder.roformer import head_of
from rope.layers.transformer import STD


def reading_numbers(
    source: TextEncoder, alphabet: PegasusTokenizer, shares: np.ndarray, seed: int = 0, *, drawn: bool = False
) -> TextEncoder:
    """The encoder with the alphabet's rows. shares float32 [n, V]: of each number that the source's tokens are, as
    parts of its row; what is missing to 1 is the row of [UNK]. drawn: the rows of numbers are random instead,
    N(0, 0.02²), and their biases 0. Raises ValueError for an encoder without head."""
    embeddings, head, unknown = source.model.embeddings, head_of(source.model), source.tokenizer.unk_id
    rows = -(-alphabet.vocab_size // 16) * 16  # for a mesh to cut
    word = np.zeros((rows, embeddings.word.shape[1]), np.float32)
    bias = np.zeros(rows, np.float32)
    first = len(SPECIALS)
    word[:first], bias[:first] = embeddings.word[:first], head.bias[:first]
    count = alphabet.vocab_size - first
    if drawn:
        word[first : first + count] = np.random.default_rng(seed).normal(0, STD, (count, word.shape[1]))
    else:
        missing = 1 - shares.sum(1, keepdims=True)
        width = shares.shape[1]
        word[first : first + count] = shares @ embeddings.word[:width] + missing * embeddings.word[unknown]
        bias[first : first + count] = shares @ head.bias[:width] + missing[:, 0] * head.bias[unknown]
    # arrays of the host, as a loader gives them
    found = replace(embeddings, word=cast(jax.Array, word)), replace(head, bias=cast(jax.Array, bias))
    model = replace(source.model, embeddings=found[0], head=found[1])
    return TextEncoder(model, replace(source.config, vocabulary=rows), alphabet)


def beginning_to_match(source: TextEncoder, seed: int = 0) -> TextEncoder:
    """The encoder with new rows for the words of the labels and for the token type of marked ids, drawn as wide as the
    words lie. As they come from pretraining, never asked for, they lie so near each other that for many steps labels
    are hardly told apart."""
    embeddings, head, random = source.model.embeddings, head_of(source.model), np.random.default_rng(seed)
    word, kind, bias = (np.array(x, np.float32) for x in (embeddings.word, embeddings.type, head.bias))
    wide = word[len(SPECIALS) : source.tokenizer.vocab_size].std()
    word[[NO, YES]], bias[[NO, YES]] = random.normal(0, wide, (2, word.shape[1])), 0
    kind[1:2] = kind[0] + random.normal(0, wide, kind.shape[1])  # where there is a second type
    changed = replace(embeddings, word=cast(jax.Array, word), type=cast(jax.Array, kind))
    model = replace(source.model, embeddings=changed, head=replace(head, bias=cast(jax.Array, bias)))
    return source._replace(model=model)
