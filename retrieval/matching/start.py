"""An encoder of plain text that begins to read numbers: its embedding's rows are mixed by an alignment."""

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
    source: TextEncoder,
    alphabet: PegasusTokenizer,
    shares: np.ndarray,
    seed: int = 0,
    *,
    drawn: bool = False,
    words: bool = False,
) -> TextEncoder:
    """The encoder with the alphabet's rows. shares float32 [n, V]: of each number that the source's tokens are, as
    parts of its row; what is missing to 1 is the row of [UNK], as for the words of the labels. drawn: the rows of
    numbers are random instead, N(0, 0.02²), and their biases 0. words: the source has learned those of the labels,
    which stay. Raises ValueError for an encoder without head."""
    embeddings, head, unknown = source.model.embeddings, head_of(source.model), source.tokenizer.unk_id
    rows = -(-alphabet.vocab_size // 16) * 16  # for a mesh to cut
    word = np.zeros((rows, embeddings.word.shape[1]), np.float32)
    bias = np.zeros(rows, np.float32)
    first = len(SPECIALS)
    word[:first], bias[:first] = embeddings.word[:first], head.bias[:first]
    if not words:
        word[[NO, YES]], bias[[NO, YES]] = embeddings.word[unknown], head.bias[unknown]
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
