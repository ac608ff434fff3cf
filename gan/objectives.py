"""The critics: what each maximises, and how it is kept 1-Lipschitz. Batches are x [n, D] of P and y [n, D] of Q, and
C_ij is the ground cost from x_i to y_j.

Settings are those of Korotin, Kolesov, Burnaev 2022 (arXiv 2206.07767), whose names for the critics stand in brackets.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from gan import weight_constraints
from gan.certified import almost_orthogonal, orthogonal, residual
from gan.critic import (
    Critic,
    Draw,
    Readings,
    Shape,
    State,
    above,
    adam,
    critic_of,
    joined,
    kr,
    kr_alone,
    slope,
    slope_of,
)
from gan.metric import Metric, distances, dual_lengths, lengths
from gan.mover import learned_mover
from gan.networks import Layer
from gan.transport import entropic, matched, need_ott


def weight_clipping(shape: Shape, bound: float = 0.04, rate: float = 2e-4) -> Critic:
    """[WC] Arjovsky, Chintala, Bottou 2017 (arXiv 1701.07875). Its scale goes with bound, width and depth:
    no estimate of W1."""
    above(bound=bound, rate=rate)
    clip = partial(weight_constraints.clip, bound=bound)
    return critic_of(shape, kr_alone, constraint="clipped", project=clip, tx=adam(rate))


def gradient_penalty(
    shape: Shape, weight: float = 10.0, one_sided: bool = False, metric: Metric = "l2", rate: float = 2e-4
) -> Critic:
    """[GP] Gulrajani et al. 2017 (arXiv 1704.00028); one-sided [LP]:
    Petzka, Fischer, Lukovnikov 2018 (arXiv 1709.08894).

    The penalty is on the gradient's dual norm, at points between pairs of x and y.
    """
    above(weight=weight, rate=rate)

    def loss(f, x, y, key):
        along = jax.random.uniform(key, (len(x), 1))
        steep = dual_lengths(slope(f, y + along * (x - y)), metric)
        excess = jax.nn.relu(steep - 1) if one_sided else steep - 1
        found, penalty = kr(f(joined(x, y))), jnp.mean(excess**2)
        return weight * penalty - found, {"kr": found, "penalty": penalty}

    return critic_of(shape, loss, constraint="penalised", metric=metric, tx=adam(rate))


def spectral_normalization(shape: Shape, iterations: int = 5, detached: bool = False, rate: float = 2e-4) -> Critic:
    """[SN] Miyato et al. 2018 (arXiv 1802.05957): kernels divided by their spectral norms.

    detached: no gradient through the norm, as the published benchmark's code has it.

    Norms of steps are those of some iterations from where the last step's ended, which are below the true ones and lag
    behind updates: f is steeper than 1 by as much. A settled state has kernels divided by bounds of their norms, and is
    certified.
    """

    above(iterations=iterations, rate=rate)

    def begin(key: jax.Array, layers: list[Layer]) -> list[jax.Array]:
        vectors = []
        for inputs in shape.inputs(layers):
            key, now = jax.random.split(key)
            vectors.append(jax.random.normal(now, inputs))
        return weight_constraints.spectral(layers, vectors, 50)[1]

    def constrain(layers, vectors):
        if not vectors:  # settled
            return layers, vectors
        return weight_constraints.spectral(layers, vectors, iterations, detached)

    def settle(state: State) -> State:
        layers = state.nets["f"]
        return State({"f": weight_constraints.within_bounds(layers, shape.inputs(layers))}, ())

    return critic_of(
        shape,
        kr_alone,
        constraint="certified" if shape.bounded else "none",
        tx=adam(rate),
        constrain=constrain,
        memory=begin,
        settle=settle,
    )


def c_transform(shape: Shape, metric: Metric = "l2", rate: float = 2e-4) -> Critic:
    """[MM:B] f on P and its transform min_i C_ij - f(x_i) on Q (Mallasto, Montúfar, Gerolin 2019, arXiv 1910.03875).

    No constraint is needed: whatever f, the objective is at most the exact distance of the minibatch.
    """

    above(rate=rate)

    def read(f, x, y):
        values = f(joined(x, y))
        transform = jnp.min(distances(x, y, metric) - values[: len(x), None], 0)
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(transform)}

    return _of_objective(shape, read, metric, adam(rate, 0.9, 0.999))


def soft_c_transform(
    shape: Shape, epsilon: float = 0.1, debiased: bool = False, metric: Metric = "l2", rate: float = 2e-4
) -> Critic:
    """The same with a soft minimum over i, -epsilon log mean_i exp((f(x_i) - C_ij) / epsilon): above it by at most
    epsilon log n (Mallasto et al., ibid.).

    debiased: less half of what x is from x and y from y, as the Sinkhorn divergence has it
    (Feydy et al. 2019, arXiv 1810.08278); f is trained as without.
    """
    above(epsilon=epsilon, rate=rate)
    if debiased:
        need_ott()

    def biased(f, x, y):
        values = f(joined(x, y))
        exponents = (values[: len(x), None] - distances(x, y, metric)) / epsilon
        transform = -epsilon * (jax.nn.logsumexp(exponents, 0) - jnp.log(len(x)))
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(transform)}

    def read(f, x, y):
        found = biased(f, x, y)
        within = entropic(x, x, metric, epsilon) + entropic(y, y, metric, epsilon)
        return found | {"objective": found["objective"] - within / 2}

    return _of_objective(shape, biased, metric, adam(rate, 0.9, 0.999), read if debiased else None)


def _of_objective(
    shape: Shape, maximised: Callable, metric: Metric, tx: optax.GradientTransformation, read: Callable | None = None
) -> Critic:
    def loss(f, x, y, key):
        readings = maximised(f, x, y)
        return -readings["objective"], readings

    return critic_of(shape, loss, metric=metric, tx=tx, read=read or maximised)


def compared_c_transforms(shape: Shape, metric: Metric = "l2") -> Critic:
    """[MM:Bv2] CoWGAN (Kwon et al. 2021, arXiv 2110.14150):
    where one of f's transforms is below kr, the step is on that one."""

    def loss(f, x, y, key):
        values, costs = f(joined(x, y)), distances(x, y, metric)
        above, below = values[: len(x)], values[len(x) :]
        plain = kr(values)
        on_y = jnp.mean(above) + jnp.mean(jnp.min(costs - above[:, None], 0))
        on_x = -jnp.mean(below) + jnp.mean(jnp.min(costs + below[None], 1))
        chosen = jnp.where(on_y < plain, on_y, jnp.where(on_x < plain, on_x, plain))
        return -chosen, {"kr": plain}

    return critic_of(shape, loss, metric=metric)


def regularized(shape: Shape, epsilon: float = 0.01, metric: Metric = "l2", rate: float = 2e-4) -> Critic:
    """[LS] Seguy et al. 2018 (arXiv 1711.02283):
    f on P and g on Q, and a quadratic penalty where f(x) + g(y) is above the cost."""
    above(epsilon=epsilon, rate=rate)
    forward, tx = shape.forward(), adam(rate, 0.9, 0.999)

    def init(key: jax.Array) -> State:
        nets = dict(zip("fg", map(shape.init, jax.random.split(key)), strict=True))
        return State(nets, tx.init(nets))

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        x, y = draw(key)

        def objective(nets):
            values, other = forward(nets["f"], joined(x, y)), forward(nets["g"], y)
            apart = lengths((x - y), metric)
            penalty = jnp.mean(jax.nn.relu(values[: len(x)] + other - apart) ** 2) / (4 * epsilon)
            own = jnp.mean(values[: len(x)]) + jnp.mean(other)
            return penalty - own, {"kr": kr(values), "objective": own, "penalty": penalty}

        gradient, readings = jax.grad(objective, has_aux=True)(state.nets)
        updates, optimizer = tx.update(gradient, state.optimizer, state.nets)
        return State(optax.apply_updates(state.nets, updates), optimizer), readings

    def potential(state: State, x: jax.Array) -> jax.Array:
        return forward(state.nets["f"], x)

    def read(state: State, x: jax.Array, y: jax.Array) -> Readings:
        values = potential(state, joined(x, y))
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(forward(state.nets["g"], y))}

    return Critic("penalised", init, step, read, potential, slope_of(potential), metric)


def exact(shape: Shape, metric: Metric = "l2") -> Critic:
    """[DOT] No network: the exact distance of the minibatch, whose points are matched by scipy, on the host."""

    def match(x: jax.Array, y: jax.Array) -> jax.Array:
        chosen = jax.ShapeDtypeStruct((len(x),), jnp.int32)
        return jax.pure_callback(lambda x, y: matched(x, y, metric), chosen, x, y, vmap_method="sequential")

    def read(state: State, x: jax.Array, y: jax.Array) -> Readings:
        joined(x, y)
        there = y[match(*jax.lax.stop_gradient((x, y)))]
        found = jnp.mean(lengths((x - there), metric))
        return {"kr": found, "objective": found}

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        return state, {}

    return Critic("none", lambda key: State({}, ()), step, read, None, None, metric)


CRITICS: dict[str, Callable[[Shape], Critic]] = {
    "wc": weight_clipping,
    "gp": gradient_penalty,
    "lp": partial(gradient_penalty, one_sided=True),
    "sn": spectral_normalization,
    "sn-detached": partial(spectral_normalization, detached=True),
    "ortho": orthogonal,
    "aol": almost_orthogonal,
    "sll": residual,
    "ls": regularized,
    "c": c_transform,
    "c-soft": soft_c_transform,
    "c-debiased": partial(soft_c_transform, debiased=True),
    "cow": compared_c_transforms,
    "exact": exact,
    "mm": learned_mover,
    "mm-reverse": partial(learned_mover, reverse=True),
}
