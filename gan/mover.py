"""A critic and a map that is learned beside it, in the place of the transform over a batch (gan.objectives)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gan.critic import Critic, Draw, Readings, Shape, State, adam, joined, kr, slope_of
from gan.metric import Metric, lengths
from gan.networks import mlp


def learned_mover(shape: Shape, inner: int = 12, reverse: bool = False, metric: Metric = "l2") -> Critic:
    """[MM; reverse: MM:R] max over f, min over a map T from Q to P of E f(x) + E |T(y) - y| - f(T(y))
    (Korotin, Kolesov, Burnaev 2022, arXiv 2206.07767, section 3).

    T takes `inner` steps for each of f. In reverse T goes from P to Q, f is learned on Q,
    and the direction is read from T.
    """
    if inner < 1:
        raise ValueError(f"inner is {inner}: the map takes one step or more for each of f")
    forward, tx = shape.forward(), adam()

    def init(key: jax.Array) -> State:
        first, second = jax.random.split(key)
        nets = {"f": shape.init(first), "mover": shape.perceptron(second, shape.size)}
        return State(nets, {name: tx.init(net) for name, net in nets.items()})

    def descend(state: State, name: str, loss: Callable) -> State:
        gradient = jax.grad(lambda net: loss(state.nets | {name: net}))(state.nets[name])
        updates, optimizer = tx.update(gradient, state.optimizer[name], state.nets[name])
        nets = state.nets | {name: optax.apply_updates(state.nets[name], updates)}
        return State(nets, state.optimizer | {name: optimizer})

    def cost_of(nets, points):
        there = mlp(nets["mover"], points)
        away = lengths((there - points), metric)
        return jnp.mean(away) - jnp.mean(forward(nets["f"], there))

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        keys = jax.random.split(key, inner + 1)
        side = 0 if reverse else 1

        def once(state, key):
            points = draw(key)[side]
            return descend(state, "mover", lambda nets: cost_of(nets, points)), None

        state, _ = jax.lax.scan(once, state, keys[1:])
        x, y = draw(keys[0])
        sources, targets = (x, y) if reverse else (y, x)
        there = jax.lax.stop_gradient(mlp(state.nets["mover"], sources))

        def loss(nets):
            return jnp.mean(forward(nets["f"], there)) - jnp.mean(forward(nets["f"], targets))

        found = read(state, x, y)
        return descend(state, "f", loss), found

    sign = -1.0 if reverse else 1.0

    def potential(state: State, x: jax.Array) -> jax.Array:
        return sign * forward(state.nets["f"], x)

    def read(state: State, x: jax.Array, y: jax.Array) -> Readings:
        values = potential(state, joined(x, y))
        sources, targets = (x, y) if reverse else (y, x)
        own = jnp.mean(forward(state.nets["f"], targets)) + cost_of(state.nets, sources)
        return {"kr": kr(values), "objective": own}

    def field(state: State, x: jax.Array) -> jax.Array:
        if not reverse:
            return slope_of(potential)(state, x)
        away = x - mlp(state.nets["mover"], x)
        return away / lengths(away)[:, None]

    return Critic("none", init, step, read, potential, field, metric)
