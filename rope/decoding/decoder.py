"""What the search knows of a model: four functions, whatever its attention and its prompts are like.

Letters: B rows, S positions of a prompt, K beams of a row, P positions that are written, D model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax

from rope.decoding.cache import Cache

# (cache, tokens [B, K], path [B, K, P], t) -> float32 logits [B, K, V] and the cache:
# a step and its logits for one prompt.
Predict = Callable[[Cache, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Cache]]


class Decoder(Protocol):
    """A frozen dataclass of a config with these methods: hashable, so that equal ones share one compiled program.

    `model` is the pytree of parameters, `memory` whatever `begin` returns. Everything is traced in Auto mode.
    """

    @property
    def vocabulary(self) -> int:
        """Columns of the logits (V)."""

    def begin(self, model: Any, prompt: jax.Array, segments: jax.Array) -> Any:
        """Prompts [B, S] and their segments (1, or 0 for padding) -> what the steps read again and again,
        once a row."""

    def cache(self, memory: Any, beams: int, positions: int) -> Cache:
        """What each layer keeps of what is written, before the first step: a row of the cache for each of the memory's.
        Hypotheses that never change places are given one row each later on, with the same memory."""

    def step(
        self, model: Any, memory: Any, cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """Tokens [B, K] at position t -> hidden states [B, K, D] for the next ones,
        and the cache with position t in it.

        path [B, K, P]: through which beam each hypothesis came at each position, its own at t. At position 0 the tokens
        are `Marks.start`; a decoder whose prompts end with what comes before the first token written may read that
        instead.
        """

    def logits(self, model: Any, hidden: jax.Array) -> jax.Array:
        """Hidden states [B, K, D] -> float32 logits [B, K, V]."""
