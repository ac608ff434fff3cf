"""One critic trained on two laws that stay as they are, several seeds in one program, and what it then says,
beside the truth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan.critic import Critic, State, kr, precise, slope
from gan.laws import Law
from gan.metric import Metric, dual_lengths, lengths
from gan.threefry import key_of
from gan.transport import exact_w1
from training.ranges import check_number
from training.step import compiler_options

BINS, SLOPE = 50, 2.5  # of histograms of gradients, the last bin with all that is longer


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a critic says after some steps; arrays are [seeds]."""

    step: int
    kr: np.ndarray  # mean f(x) - mean f(y) on fresh points
    objective: np.ndarray  # what the critic itself takes for the distance, of minibatches
    cosine: np.ndarray  # of its direction with the optimal one, NaN where that is unknown
    l2: np.ndarray  # mean |its direction - the optimal one|^2 at points of P, NaN where that is unknown
    best: np.ndarray  # what the optimal f says of the same points, NaN where that is unknown: W1 but for their sampling
    steepest: np.ndarray  # largest gradient seen, in the dual norm: at P, at Q and between them
    slopes: np.ndarray  # [seeds, 3, BINS]: the part of gradients at P, at Q and between that is so long, of 0 to SLOPE
    bound: np.ndarray  # what the slope of the f that steps are taken by is at most, NaN where that is unknown


def train(
    critic: Critic,
    law: Law,
    *,
    steps: int,
    batch: int = 1024,
    seeds: int = 3,
    chunk: int = 250,
    scored: int = 4096,
    linear_decay: bool = False,
) -> Iterator[tuple[Reading, State]]:
    """After each chunk of steps what the critics of all seeds say, and their states, stacked.
    One compiled program a chunk.

    With `linear_decay` updates shrink to nothing by the last step, where constant ones keep a critic moving about its
    best. Ends early where a seed's critic is no longer finite: the last reading tells. Raises ValueError for numbers
    that cannot be.
    """
    wanted = {"steps": (steps, 1), "batch": (batch, 2), "seeds": (seeds, 1), "chunk": (chunk, 1), "scored": (scored, 2)}
    for name, (value, least) in wanted.items():
        check_number(name, value, least)
    state, advance = program(critic, law, batch=batch, seeds=seeds, decay_steps=steps if linear_decay else None)
    score_key = seed_keys(seeds)[2]

    @partial(jax.jit, compiler_options=compiler_options())
    @precise
    def look(state: State, key: jax.Array) -> dict[str, jax.Array]:
        return over_seeds(partial(scores, critic, law, batch=batch, count=scored), state, key)

    for first in range(0, steps, chunk):
        count = min(chunk, steps - first)
        state = advance(state, first, count)
        found = {name: np.asarray(value) for name, value in look(state, score_key).items()}
        yield Reading(step=first + count, **found), state
        if not np.isfinite(found["kr"]).all():
            return


def seed_keys(seeds: int) -> jax.Array:
    """[3, seeds]: keys of each seed, for weights, draws and what is scored;
    those of a seed do not depend on how many there are."""
    keys = jax.vmap(key_of)(jnp.arange(seeds))
    return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)


def over_seeds(function: Callable, *stacked: Any) -> Any:
    """What `function` returns for each seed, stacked: side by side, but in turn on a CPU, which one seed's products
    fill and where batched ones are slower."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), stacked)
    return jax.vmap(function)(*stacked)


def program(
    critic: Critic, law: Law, *, batch: int, seeds: int, decay_steps: int | None = None
) -> tuple[State, Callable[[State, int, int], State]]:
    """(the first state of all seeds, stacked; advance(state, first, count), which takes so many steps)."""
    begin, train_key, _ = seed_keys(seeds)

    @partial(jax.jit, static_argnames="count", compiler_options=compiler_options())
    @precise
    def advance(state: State, first: jax.Array, count: int) -> State:
        def one(state: State, key: jax.Array) -> State:
            def body(state, number):
                after, _ = critic.step(state, lambda k: law.sample(k, batch), jax.random.fold_in(key, number))
                if decay_steps:  # of what an optimizer, whichever it is, has changed
                    part = 1 - number / decay_steps
                    nets = jax.tree.map(lambda old, new: old + part * (new - old), state.nets, after.nets)
                    after = after._replace(nets=nets)
                return after, None

            return jax.lax.scan(body, state, first + jnp.arange(count))[0]

        return over_seeds(one, state, train_key)

    state = precise(jax.vmap(critic.init))(begin)  # not compiled: its few operations are those of all critics
    return state, advance


def scores(
    critic: Critic, law: Law, state: State, key: jax.Array, *, batch: int, count: int
) -> dict[str, jax.Array | float]:
    """What is read of one critic, on points that no training step has drawn."""
    bound = critic.bound(state) if critic.bound else jnp.nan
    state = critic.settle(state)
    x, y = law.sample(key, count)
    batch = min(batch, count)
    batches = (z[: count // batch * batch].reshape(-1, batch, law.dimensions) for z in (x, y))
    told = jax.lax.map(lambda pair: critic.read(state, *pair), tuple(batches))
    objective = jnp.mean(told.get("objective", told["kr"]))
    best = jnp.nan if law.potential is None else kr(law.potential(jnp.concatenate([x, y])))
    unknown: dict[str, jax.Array | float]
    unknown = {"cosine": jnp.nan, "l2": jnp.nan, "steepest": jnp.nan, "slopes": jnp.full((3, BINS), jnp.nan)}
    found = {"kr": objective, "objective": objective, "best": best, "bound": bound, **unknown}
    if critic.potential is None or critic.field is None:
        return found
    f = partial(critic.potential, state)
    between = y + jax.random.uniform(key, (count, 1)) * (x - y)
    steep = dual_lengths(slope(f, jnp.concatenate([x, y, between])), critic.metric)
    found |= {
        "kr": kr(f(jnp.concatenate([x, y]))),
        "steepest": jnp.max(steep),
        "slopes": _parts(steep.reshape(3, count)),
    }
    if law.gradient is not None:
        wanted, field = law.gradient(x), critic.field(state, x)
        known = jnp.any(wanted != 0, 1)  # P has atoms where float32 cannot tell a point from its funnel's centre
        inner = jnp.sum(wanted * field, 1) / lengths(field)
        found["cosine"] = jnp.mean(inner, where=known)
        found["l2"] = jnp.mean(jnp.sum((field - wanted) ** 2, 1), where=known)
    return found


def _parts(steep: jax.Array) -> jax.Array:
    """[n, points] -> [n, BINS]."""
    bins = jnp.clip(steep * (BINS / SLOPE), 0, BINS - 1).astype(jnp.int32)
    return jnp.mean(jax.nn.one_hot(bins, BINS), 1)


@lru_cache
def minibatch_w1(law: Law, batch: int, draws: int = 8, metric: Metric = "l2", seed: int = 0) -> np.ndarray:
    """[draws]: the exact distance of so many pairs of batches, which is not that of the laws:
    fewer points are farther apart."""
    sample: Callable = jax.jit(law.sample, static_argnums=1)
    pairs = (sample(jax.random.key(seed + n), batch) for n in range(draws))
    return np.array([exact_w1(x, y, metric) for x, y in pairs])
