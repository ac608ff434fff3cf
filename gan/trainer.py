"""A generator against a critic: one step is `n_critic` updates of the critic and one of the generator.

The generator minimises what the critic takes for the distance, differentiated through generated points: the mean of -f
for critics of Kantorovich's form, and the whole objective, costs included, for those that transform f over the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan.critic import Critic, Readings, State, adam
from gan.networks import Layer, halvings, init_mlp, init_transposed, mlp, transposed

Images = jax.Array  # [n, D], values from 0 to 1


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Noise [n, latent] -> points [n, D] from 0 to 1."""

    size: int  # D
    latent: int = 64
    # Of perceptrons; convolutions take 256, 128, 64, the last of them where sides are soon odd.
    hidden: tuple[int, ...] = (256, 256)
    image: tuple[int, int, int] | None = None  # (height, width, channels): convolutions
    codes: int = 0  # above 0: so many fixed noises and no others, a discrete law

    def init(self, key: jax.Array) -> list[Layer]:
        if self.image is not None:
            return init_transposed(key, self.latent, self.image, (256, 128, 64)[3 - halvings(self.image) :])
        return init_mlp(key, (self.latent, *self.hidden, self.size))

    def noise(self, key: jax.Array, count: int) -> jax.Array:
        if not self.codes:
            return jax.random.normal(key, (count, self.latent))
        fixed = jax.random.normal(jax.random.key(0), (self.codes, self.latent))
        return fixed[jax.random.randint(key, (count,), 0, self.codes)]

    def forward(self, layers: Sequence[Layer], noise: jax.Array) -> Images:
        made = mlp(layers, noise) if self.image is None else transposed(layers, noise, self.image)
        return jax.nn.sigmoid(made)

    def sample(self, layers: Sequence[Layer], key: jax.Array, count: int) -> Images:
        return self.forward(layers, self.noise(key, count))


class Gan(NamedTuple):
    critic: State
    generator: list[Layer]
    average: list[Layer]  # of the generator's weights, exponentially weighted
    optimizer: Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    critic: Critic
    generator: Generator
    n_critic: int = 5
    rate: float = 2e-4
    decay: float = 0.999  # of the average

    @property
    def tx(self) -> optax.GradientTransformation:
        return adam(self.rate, 0.5, 0.9)

    def init(self, key: jax.Array) -> Gan:
        first, second = jax.random.split(key)
        layers = self.generator.init(second)
        return Gan(self.critic.init(first), layers, layers, self.tx.init(layers))

    def step(self, gan: Gan, real: Images, key: jax.Array) -> tuple[Gan, Readings]:
        """real [n_critic + 1, batch, D]: a batch for each update."""
        keys = jax.random.split(key, self.n_critic + 1)
        count = real.shape[1]

        def train_critic(state: State, given: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
            x, key = given
            return self.critic.step(state, lambda k: (x, self.generator.sample(gan.generator, k, count)), key)[0], None

        state, _ = jax.lax.scan(train_critic, gan.critic, (real[1:], keys[1:]))
        noise = self.generator.noise(keys[0], count)

        def distance(layers: list[Layer]) -> tuple[jax.Array, Readings]:
            readings = self.critic.read(state, real[0], self.generator.forward(layers, noise))
            return readings.get("objective", readings["kr"]), readings

        gradient, readings = jax.grad(distance, has_aux=True)(gan.generator)
        changes, optimizer = self.tx.update(gradient, gan.optimizer, gan.generator)
        layers = optax.apply_updates(gan.generator, changes)
        updates = optax.tree.get(optimizer, "count")
        decay = jnp.minimum(self.decay, updates / (updates + 9))  # the first weights are soon forgotten
        average = optax.incremental_update(layers, gan.average, 1 - decay)
        return Gan(state, layers, average, optimizer), readings
