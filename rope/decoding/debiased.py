"""Self-debiasing: written by one prompt, and away from what other prompts would write (Schick, Udupa and Schütze 2021,
arXiv 2103.00453, section 4; Schick and Schütze 2021, arXiv 2104.07540, section 3).

Letters: B rows, G prompts of a row, S positions of a prompt, K beams of a row, P positions written, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from rope.decoding.cache import Cache
from rope.decoding.decoder import Decoder
from training.ranges import check_ranges


@dataclass(frozen=True)
class Debiased:
    """A rope.decoding.decoder.Decoder around another: a row of ids [G S] is G prompts of S, each padded as the other
    decoder has it, and what is written for it is one text, so that every search and control is as ever.

    The first prompt writes. A token's probability p under it is multiplied by exp(decay * (p - q)) where that is below
    1, q being the largest of its probabilities under the others. With one prompt it is the other decoder, to the bit.
    Raises ValueError.
    """

    decoder: Decoder
    prompts: int  # G
    decay: float = 100.0  # lambda of the papers

    def __post_init__(self):
        check_ranges(self, prompts=1, decay=0)

    @property
    def vocabulary(self) -> int:
        return self.decoder.vocabulary

    def begin(self, model: Any, prompt: jax.Array, segments: jax.Array) -> Any:
        """Rows [B, G S] -> the memory of B G prompts. Raises ValueError for a length that G does not divide."""
        if prompt.shape[1] % self.prompts:
            raise ValueError(f"rows of {prompt.shape[1]} ids: {self.prompts} prompts of one length are needed")
        own, seen = (x.reshape(-1, x.shape[1] // self.prompts) for x in (prompt, segments))
        return self.decoder.begin(model, own, seen)

    def cache(self, memory: Any, beams: int, positions: int) -> Cache:
        return self.decoder.cache(memory, beams, positions)

    def step(
        self, model: Any, memory: Any, cache: Cache, tokens: jax.Array, path: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Cache]:
        """The same tokens [B, K] by the same path [B, K, P] after each prompt: hidden states [B G, K, D]."""
        each, by = (jnp.repeat(x, self.prompts, 0) for x in (tokens, path))
        return self.decoder.step(model, memory, cache, each, by, t)

    def logits(self, model: Any, hidden: jax.Array) -> jax.Array:
        """Hidden states [B G, K, D] -> [B, K, V]."""
        found = self.decoder.logits(model, hidden)
        if self.prompts == 1:
            return found
        log_p = jax.nn.log_softmax(found.reshape(-1, self.prompts, *found.shape[1:]), -1)
        own, others = log_p[:, 0], jnp.max(log_p[:, 1:], 1)
        return own + self.decay * jnp.minimum(jnp.exp(own) - jnp.exp(others), 0)
