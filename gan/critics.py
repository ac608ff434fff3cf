"""Critics: what each maximises, how it is kept 1-Lipschitz, and what it then says W1 is.

All are of one form. f is high on x ~ P and low on y ~ Q; `kr` is the mean of f(x) less that of f(y) (Kantorovich and Rubinstein), and
`objective` what the critic itself takes for the distance, never with a penalty. Where both are the same it is said once. Batches are x [n, D]
and y [n, D], images flat too, C_ij the ground cost from x_i to y_j.

Settings are those of Korotin, Kolesov, Burnaev 2022 (arXiv 2206.07767), whose names for the critics stand in brackets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gan import lipschitz
from gan.metric import Metric, distances, dual_lengths, lengths
from gan.networks import Activation, Layer, convolutions, init_convolutions, init_mlp, mlp
from gan.transport import entropic, matched

Readings = dict[str, jax.Array]  # kr, objective, penalty of a batch
Draw = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # key -> a batch


class State(NamedTuple):
    nets: dict[str, list[Layer]]  # f, and what else is trained
    optimizer: Any
    memory: Any = ()  # what is carried from step to step without gradient


@dataclass(frozen=True)
class Critic:
    name: str
    certified: bool
    """No weights that steps can lead to make kr more than W1 of what it is the mean over."""
    init: Callable[[jax.Array], State]
    step: Callable[[State, Draw, jax.Array], tuple[State, Readings]]
    """One update of f, on batches drawn anew."""
    read: Callable[[State, jax.Array, jax.Array], Readings]
    """kr and objective of a batch."""
    potential: Callable[[State, jax.Array], jax.Array] | None
    """f(x) [B]; None where the critic is no function of single points."""
    field: Callable[[State, jax.Array], jax.Array] | None
    """The direction in which mass at points of P is said to come: the gradient of f there, or a mover's."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of f: a perceptron [D, F, F, 1], or convolutions over an image of D = height width channels."""

    size: int  # D
    hidden: tuple[
        int, ...
    ] = ()  # features of the hidden layers; by default two of max(2 D, 128), or 64, 128, 256 of convolutions
    image: tuple[int, int, int] | None = None  # (height, width, channels)

    def init(self, key: jax.Array) -> list[Layer]:
        if self.image is None:
            return self.perceptron(key, 1)
        if math.prod(self.image) != self.size:
            raise ValueError(f"images of {self.image} have {math.prod(self.image)} values, the points {self.size}")
        return init_convolutions(key, self.image, self.hidden or (64, 128, 256))

    def perceptron(self, key: jax.Array, outputs: int) -> list[Layer]:
        hidden = () if self.image else self.hidden
        return init_mlp(key, [self.size, *(hidden or 2 * (max(2 * self.size, 128),)), outputs])

    def forward(self, activation: Activation | None = None) -> Callable[[list[Layer], jax.Array], jax.Array]:
        """(layers, x [B, D]) -> f(x) [B]."""
        if self.image is None:
            return lambda layers, x: mlp(layers, x, activation or "relu")[:, 0]
        return lambda layers, x: convolutions(layers, x.reshape(-1, *self.image), activation or "leaky")[:, 0]


def kr(values: jax.Array) -> jax.Array:
    """Of f over a batch of P and then one of Q, [2n]."""
    half = len(values) // 2
    return jnp.mean(values[:half]) - jnp.mean(values[half:])


def _both(x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(f"batches {x.shape} and {y.shape}: both must be of one shape, and of two points or more")
    return jnp.concatenate([x, y])


def slope(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The gradient of f [B] -> [B] at each row."""
    return jax.grad(lambda x: jnp.sum(f(x)))(x)


def adam(rate: float = 2e-4, first: float = 0.0, second: float = 0.9) -> optax.GradientTransformation:
    return optax.adam(rate, first, second)


def _critic(
    name: str,
    shape: Shape,
    loss: Callable[[Callable, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Readings]],
    *,
    activation: Activation | None = None,
    certified: bool = False,
    tx: optax.GradientTransformation | None = None,
    begin: Callable[[list[Layer]], list[Layer]] | None = None,
    project: Callable[[list[Layer]], list[Layer]] = lambda layers: layers,
    constrain: Callable[[list[Layer], Any], tuple[list[Layer], Any]] = lambda layers, memory: (layers, memory),
    memory: Callable[[jax.Array, list[Layer]], Any] = lambda key, layers: (),
    read: Callable | None = None,
) -> Critic:
    """A critic of one network. loss(f, x, y, key) -> (what is minimised, readings). `begin` makes the first weights out of random ones,
    `project` those that are kept after an update, `constrain` those that f is computed with."""
    tx = tx or adam()
    forward = shape.forward(activation)

    def init(key: jax.Array) -> State:
        first, second = jax.random.split(key)
        layers = (begin or project)(shape.init(first))
        return State({"f": layers}, {"f": tx.init(layers)}, memory(second, layers))

    def potential(state: State, x: jax.Array) -> jax.Array:
        return forward(constrain(state.nets["f"], state.memory)[0], x)

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        first, second = jax.random.split(key)
        x, y = draw(first)

        def objective(layers):
            made, kept = constrain(layers, state.memory)
            value, readings = loss(lambda points: forward(made, points), x, y, second)
            return value, (readings, kept)

        layers = state.nets["f"]
        gradient, (readings, kept) = jax.grad(objective, has_aux=True)(layers)
        updates, optimizer = tx.update(gradient, state.optimizer["f"], layers)
        return State({"f": project(optax.apply_updates(layers, updates))}, {"f": optimizer}, kept), readings

    def say(state: State, x: jax.Array, y: jax.Array) -> Readings:
        f = lambda points: potential(state, points)  # noqa: E731
        return read(f, x, y) if read else {"kr": kr(f(_both(x, y)))}

    return Critic(name, certified, init, step, say, potential, lambda state, x: slope(lambda x: potential(state, x), x))


def _kr_alone(f, x, y, key) -> tuple[jax.Array, Readings]:
    found = kr(f(_both(x, y)))
    return -found, {"kr": found}


def weight_clipping(shape: Shape, bound: float = 0.04) -> Critic:
    """[WC] Arjovsky, Chintala, Bottou 2017 (arXiv 1701.07875). Its scale goes with bound, width and depth: no estimate of W1."""
    _above(bound=bound)
    return _critic("wc", shape, _kr_alone, project=lambda layers: lipschitz.clip(layers, bound))


def gradient_penalty(shape: Shape, weight: float = 10.0, one_sided: bool = False, metric: Metric = "l2") -> Critic:
    """[GP] Gulrajani et al. 2017 (arXiv 1704.00028); one-sided [LP]: Petzka, Fischer, Lukovnikov 2018 (arXiv 1709.08894).

    The penalty is on the gradient's dual norm, at points between pairs of x and y.
    """
    _above(weight=weight)

    def loss(f, x, y, key):
        along = jax.random.uniform(key, (len(x), 1))
        steep = dual_lengths(slope(f, y + along * (x - y)), metric)
        excess = jax.nn.relu(steep - 1) if one_sided else steep - 1
        found, penalty = kr(f(_both(x, y))), jnp.mean(excess**2)
        return weight * penalty - found, {"kr": found, "penalty": penalty}

    return _critic("lp" if one_sided else "gp", shape, loss)


def spectral_normalization(shape: Shape, iterations: int = 5, detached: bool = False) -> Critic:
    """[SN] Miyato et al. 2018 (arXiv 1802.05957): kernels divided by their spectral norms.

    detached: no gradient through the norm, as the published benchmark's code has it. Certified once the power iteration has
    converged: it approaches the norm from below.
    """

    def begin(key: jax.Array, layers: list[Layer]):
        vectors, side = [], shape.image
        for layer in layers:
            key, now = jax.random.split(key)
            if layer.kernel.ndim == 4:
                vectors.append(jax.random.normal(now, side))
                side = (side[0] // 2, side[1] // 2, layer.kernel.shape[-1])
            else:
                vectors.append(jax.random.normal(now, (layer.kernel.shape[0],)))
        return lipschitz.spectral(layers, vectors, 50)[1]

    def constrain(layers, vectors):
        return lipschitz.spectral(layers, vectors, iterations, detached)

    return _critic(
        "sn, detached" if detached else "sn", shape, _kr_alone, certified=True, constrain=constrain, memory=begin
    )


def orthogonal(shape: Shape, rate: float = 2e-4) -> Critic:
    """[SO] Anil, Lucas, Grosse 2019 (arXiv 1811.05381): orthonormal kernels by Björck's iteration, and activations that keep
    the gradient's length (pairs sorted; the benchmark sorts all)."""
    if shape.image:
        raise ValueError("orthonormal kernels are those of products: this critic has no convolutions")
    near = partial(lipschitz.orthogonal, bounded=False)

    # Kernels stay orthonormal, so that an update takes them little away: three iterations bring them back, and the gradient
    # through two is that along the orthonormal ones. From anywhere it takes 30, with the gradient through all.
    def init(layers: list[Layer]) -> list[Layer]:
        return lipschitz.orthogonal(layers, 30)

    def constrain(layers, memory):
        return near(layers, 2), memory

    return _critic(
        "ortho",
        shape,
        _kr_alone,
        activation="maxmin",
        certified=True,
        tx=adam(rate, 0.9, 0.999),
        begin=init,
        project=lambda layers: near(layers, 3),
        constrain=constrain,
    )


def c_transform(shape: Shape, metric: Metric = "l2", rate: float = 2e-4) -> Critic:
    """[MM:B] f on P and its transform min_i C_ij - f(x_i) on Q (Mallasto, Montúfar, Gerolin 2019, arXiv 1910.03875).

    No constraint is needed: whatever f, the objective is at most the exact distance of the minibatch.
    """

    def read(f, x, y):
        values = f(_both(x, y))
        transform = jnp.min(_costs(x, y, metric) - values[: len(x), None], 0)
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(transform)}

    return _of_objective("c", shape, read, adam(rate, 0.9, 0.999))


def soft_c_transform(
    shape: Shape, epsilon: float = 0.1, debiased: bool = False, metric: Metric = "l2", rate: float = 2e-4
) -> Critic:
    """The same with a soft minimum over i, -epsilon log mean_i exp((f(x_i) - C_ij) / epsilon): above it by at most epsilon log n
    (Mallasto et al., ibid.).

    debiased: less half of what x is from x and y from y, as the Sinkhorn divergence has it (Feydy et al. 2019, arXiv 1810.08278); f
    is trained as without.
    """
    _above(epsilon=epsilon)

    def biased(f, x, y):
        values = f(_both(x, y))
        exponents = (values[: len(x), None] - _costs(x, y, metric)) / epsilon
        transform = -epsilon * (jax.nn.logsumexp(exponents, 0) - jnp.log(len(x)))
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(transform)}

    def read(f, x, y):
        found = biased(f, x, y)
        within = entropic(x, x, metric, epsilon) + entropic(y, y, metric, epsilon)
        return found | {"objective": found["objective"] - within / 2}

    name = f"c, {epsilon:g}" + debiased * ", debiased"
    return _of_objective(name, shape, biased, adam(rate, 0.9, 0.999), read if debiased else None)


def _of_objective(
    name: str, shape: Shape, maximised: Callable, tx: optax.GradientTransformation, read: Callable | None = None
) -> Critic:
    def loss(f, x, y, key):
        readings = maximised(f, x, y)
        return -readings["objective"], readings

    return _critic(name, shape, loss, tx=tx, read=read or maximised)


def compared_c_transforms(shape: Shape, metric: Metric = "l2") -> Critic:
    """[MM:Bv2] CoWGAN (Kwon et al. 2021, arXiv 2110.14150): where one of f's transforms is below kr, the step is on that one."""

    def loss(f, x, y, key):
        values, costs = f(_both(x, y)), _costs(x, y, metric)
        above, below = values[: len(x)], values[len(x) :]
        plain = kr(values)
        on_y = jnp.mean(above) + jnp.mean(jnp.min(costs - above[:, None], 0))
        on_x = -jnp.mean(below) + jnp.mean(jnp.min(costs + below[None], 1))
        chosen = jnp.where(on_y < plain, on_y, jnp.where(on_x < plain, on_x, plain))
        return -chosen, {"kr": plain}

    return _critic("cow", shape, loss)


def regularized(shape: Shape, epsilon: float = 0.01, metric: Metric = "l2", rate: float = 2e-4) -> Critic:
    """[LS] Seguy et al. 2018 (arXiv 1711.02283): f on P and g on Q, and a quadratic penalty where f(x) + g(y) is above the cost."""
    _above(epsilon=epsilon)
    forward, tx = shape.forward(), adam(rate, 0.9, 0.999)

    def init(key: jax.Array) -> State:
        nets = dict(zip("fg", map(shape.init, jax.random.split(key)), strict=True))
        return State(nets, tx.init(nets))

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        x, y = draw(key)

        def objective(nets):
            values, other = forward(nets["f"], _both(x, y)), forward(nets["g"], y)
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
        values = potential(state, _both(x, y))
        return {"kr": kr(values), "objective": jnp.mean(values[: len(x)]) + jnp.mean(forward(state.nets["g"], y))}

    return Critic("ls", False, init, step, read, potential, lambda state, x: slope(lambda x: potential(state, x), x))


def learned_mover(shape: Shape, inner: int = 12, reverse: bool = False, metric: Metric = "l2") -> Critic:
    """[MM; reverse: MM:R] max over f, min over a map T from Q to P of E f(x) + E |T(y) - y| - f(T(y)) (Korotin et al., ibid., section 3).

    T takes `inner` steps for each of f. In reverse T goes from P to Q, f is learned on Q, and the direction is read from T.
    """
    if inner < 1:
        raise ValueError(f"inner is {inner}: the map takes one step or more for each of f")
    forward, tx = shape.forward(), adam()

    def move(layers, points):
        return mlp(layers, points)

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
        there = move(nets["mover"], points)
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
        there = jax.lax.stop_gradient(move(state.nets["mover"], sources))

        def loss(nets):
            return jnp.mean(forward(nets["f"], there)) - jnp.mean(forward(nets["f"], targets))

        found = read(state, x, y)
        return descend(state, "f", loss), found

    sign = -1.0 if reverse else 1.0

    def potential(state: State, x: jax.Array) -> jax.Array:
        return sign * forward(state.nets["f"], x)

    def read(state: State, x: jax.Array, y: jax.Array) -> Readings:
        values = potential(state, _both(x, y))
        sources, targets = (x, y) if reverse else (y, x)
        own = jnp.mean(forward(state.nets["f"], targets)) + cost_of(state.nets, sources)
        return {"kr": kr(values), "objective": own}

    def field(state: State, x: jax.Array) -> jax.Array:
        if not reverse:
            return slope(lambda x: potential(state, x), x)
        away = x - move(state.nets["mover"], x)
        return away / lengths(away)[:, None]

    return Critic("mm, reverse" if reverse else "mm", False, init, step, read, potential, field)


def exact(shape: Shape, metric: Metric = "l2") -> Critic:
    """[DOT] No network: the exact distance of the minibatch, whose points are matched by scipy, on the host."""

    def match(x: jax.Array, y: jax.Array) -> jax.Array:
        chosen = jax.ShapeDtypeStruct((len(x),), jnp.int32)
        return jax.pure_callback(lambda *z: matched(*z, metric), chosen, x, y, vmap_method="sequential")

    def read(state: State, x: jax.Array, y: jax.Array) -> Readings:
        _both(x, y)
        there = y[match(*jax.lax.stop_gradient((x, y)))]
        found = jnp.mean(lengths((x - there), metric))
        return {"kr": found, "objective": found}

    def step(state: State, draw: Draw, key: jax.Array) -> tuple[State, Readings]:
        return state, {}

    return Critic("exact", False, lambda key: State({}, ()), step, read, None, None)


def _costs(x: jax.Array, y: jax.Array, metric: Metric) -> jax.Array:
    return distances(x, y, metric)


def _above(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}: it must be above 0")


CRITICS: dict[str, Callable[[Shape], Critic]] = {
    "wc": weight_clipping,
    "gp": gradient_penalty,
    "lp": partial(gradient_penalty, one_sided=True),
    "sn": spectral_normalization,
    "sn-detached": partial(spectral_normalization, detached=True),
    "ortho": orthogonal,
    "ls": regularized,
    "c": c_transform,
    "c-soft": soft_c_transform,
    "c-debiased": partial(soft_c_transform, debiased=True),
    "cow": compared_c_transforms,
    "exact": exact,
    "mm": learned_mover,
    "mm-reverse": partial(learned_mover, reverse=True),
}
