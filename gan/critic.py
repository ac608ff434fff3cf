"""What a critic is: a pure function that learns a potential f, and what it then says W1 is.

All are of one form. f is high on x ~ P and low on y ~ Q; `kr` is the mean of f(x) less that of f(y)
(Kantorovich and Rubinstein), and `objective` what the critic itself takes for the distance, never with a penalty. Where
both are the same it is said once. Batches are x [n, D] and y [n, D], images flat too, C_ij the ground cost from x_i to
y_j.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import optax

from gan import weight_constraints
from gan.metric import Metric
from gan.networks import Activation, Layer, convolutions, halvings, init_convolutions, init_mlp, mlp, over_patches

Net = Any  # a list of layers, or another pytree of weights
Readings = dict[str, jax.Array]  # kr, objective, penalty of a batch
Draw = Callable[[jax.Array], tuple[jax.Array, jax.Array]]  # key -> a batch
# How f is kept 1-Lipschitz. certified: it is, once settled, whatever the weights. penalised: the loss asks for it.
# clipped: it has some constant, which nobody knows. none: f may be anything (a transform bounds the objective instead).
Constraint = Literal["certified", "penalised", "clipped", "none"]
Given = ParamSpec("Given")
Found = TypeVar("Found")


def precise(run: Callable[Given, Found]) -> Callable[Given, Found]:
    """`run` with the products of all that it computes, or that is compiled of it, in float32: around all that begins,
    trains or asks critics and GANs. A certified critic's bound holds to 1e-6 a layer so, and to 0.5 % in what an
    accelerator takes for float32 by default."""

    @wraps(run)
    def precisely(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        with jax.default_matmul_precision("highest"):
            return run(*args, **kwargs)

    return precisely


class State(NamedTuple):
    nets: dict[str, Net]  # f, and what else is trained
    optimizer: Any
    memory: Any = ()  # what is carried from step to step without gradient


@dataclass(frozen=True)
class Critic:
    constraint: Constraint
    """certified: no weights that steps can lead to make kr of a settled state more than W1 of what it is the mean
    over."""
    init: Callable[[jax.Array], State]
    step: Callable[[State, Draw, jax.Array], tuple[State, Readings]]
    """One update of f, on batches drawn anew."""
    read: Callable[[State, jax.Array, jax.Array], Readings]
    """kr and objective of a batch."""
    potential: Callable[[State, jax.Array], jax.Array] | None
    """f(x) [B]; None where the critic is no function of single points."""
    field: Callable[[State, jax.Array], jax.Array] | None
    """The direction in which mass at points of P is said to come: the gradient of f there, or a mover's."""
    metric: Metric = "l2"
    """The ground cost; the gradient of f is measured in its dual norm."""
    settle: Callable[[State], State] = lambda state: state
    """The state to read, to ask for f and not to train: what a constraint costs too much for in every step is made to
    hold."""
    bound: Callable[[State], jax.Array] | None = None
    """What the slope of f is at most: of a state that trains, of the f that steps are taken by; None: it is unknown."""

    @property
    def certified(self) -> bool:
        return self.constraint == "certified"

    def of(self, state: State) -> Callable[[jax.Array], jax.Array]:
        """f of a state, settled. ValueError where the critic is no function of single points."""
        if self.potential is None:
            raise ValueError("the critic is no function of single points")
        return precise(partial(self.potential, precise(self.settle)(state)))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of f: a perceptron [D, F, F, 1], convolutions over an image of D = height width channels, or a perceptron's mean
    over all square patches of it."""

    size: int  # D
    # Features of the hidden layers; by default two of max(2 D, 128), or 64, 128,
    # 256 of convolutions while sides are even.
    hidden: tuple[int, ...] = ()
    image: tuple[int, int, int] | None = None  # (height, width, channels)
    patch: int = 0  # above 0: the side of patches

    @property
    def features(self) -> tuple[int, ...]:
        if self.hidden or self.image is None:
            return self.hidden or 2 * (max(2 * self.size, 128),)
        return (128, 128) if self.patch else (64, 128, 256)[: max(1, halvings(self.image))]

    def init(self, key: jax.Array) -> list[Layer]:
        if self.image is None:
            return self.perceptron(key, 1)
        if math.prod(self.image) != self.size:
            raise ValueError(f"images of {self.image} have {math.prod(self.image)} values, the points {self.size}")
        if self.patch > min(self.image[:2]):
            raise ValueError(f"patches of {self.patch} x {self.patch}: images are {self.image[0]} x {self.image[1]}")
        if self.patch:
            return init_mlp(key, [self.patch**2 * self.image[2], *self.features, 1])
        return init_convolutions(key, self.image, self.features)

    @property
    def bounded(self) -> bool:
        """Whether f is 1-Lipschitz where its layers are: of patches, where there are as many as pixels in one."""
        return self.spread <= 1

    @property
    def spread(self) -> float:
        """What the slope of f is at most where its layers are 1-Lipschitz: of patches the root of the pixels in one
        over how many there are."""
        if not self.patch or self.image is None:
            return 1.0
        return self.patch / math.sqrt((self.image[0] - self.patch + 1) * (self.image[1] - self.patch + 1))

    def inputs(self, layers: Sequence[Layer]) -> list[tuple[int, ...]]:
        """What each layer takes of one point: [in], or of a convolution [height, width, in]."""
        shapes: list[tuple[int, ...]] = []
        for layer in layers:
            inputs = layer.kernel.shape[-2]
            if layer.kernel.ndim == 2 or self.image is None:
                shapes.append((inputs,))
            else:
                shapes.append((*(side >> len(shapes) for side in self.image[:2]), inputs))
        return shapes

    def perceptron(self, key: jax.Array, outputs: int) -> list[Layer]:
        hidden = () if self.image else self.hidden
        return init_mlp(key, [self.size, *(hidden or 2 * (max(2 * self.size, 128),)), outputs])

    def forward(self, activation: Activation | None = None) -> Callable[[list[Layer], jax.Array], jax.Array]:
        """(layers, x [B, D]) -> f(x) [B]."""
        image = self.image
        if image is None:
            return lambda layers, x: mlp(layers, x, activation or "relu")[:, 0]
        if self.patch:
            return lambda layers, x: over_patches(layers, x.reshape(-1, *image), self.patch, activation or "leaky")
        return lambda layers, x: convolutions(layers, x.reshape(-1, *image), activation or "leaky")[:, 0]


def kr(values: jax.Array) -> jax.Array:
    """Of f over a batch of P and then one of Q, [2n]."""
    half = len(values) // 2
    return jnp.mean(values[:half]) - jnp.mean(values[half:])


def joined(x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(f"batches {x.shape} and {y.shape}: both must be of one shape, and of two points or more")
    return jnp.concatenate([x, y])


def slope(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The gradient of f [B] -> [B] at each row."""
    return jax.grad(lambda x: jnp.sum(f(x)))(x)


def slope_of(potential: Callable[[State, jax.Array], jax.Array]) -> Callable[[State, jax.Array], jax.Array]:
    return lambda state, x: slope(lambda x: potential(state, x), x)


def adam(rate: float = 2e-4, first: float = 0.0, second: float = 0.9) -> optax.GradientTransformation:
    return optax.adam(rate, first, second)


def critic_of(
    shape: Shape,
    loss: Callable[[Callable, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Readings]],
    *,
    activation: Activation | None = None,
    constraint: Constraint = "none",
    metric: Metric = "l2",
    tx: optax.GradientTransformation | None = None,
    begin: Callable[[jax.Array], Net] | None = None,
    project: Callable[[Net], Net] = lambda layers: layers,
    constrain: Callable[[Net, Any], tuple[Net, Any]] = lambda layers, memory: (layers, memory),
    memory: Callable[[jax.Array, Net], Any] = lambda key, layers: (),
    read: Callable | None = None,
    forward: Callable[[Net, jax.Array], jax.Array] | None = None,
    settle: Callable[[State], State] = lambda state: state,
    bound: Callable[[State], jax.Array] | None = None,
) -> Critic:
    """A critic of one network. loss(f, x, y, key) -> (what is minimised, readings). `begin` draws the first weights,
    `project` makes those that are kept after an update, `constrain` those that f is computed with. `bound`, of a
    certified critic that is no list of layers."""
    tx = tx or adam()
    forward = forward or shape.forward(activation)

    def init(key: jax.Array) -> State:
        first, second = jax.random.split(key)
        layers = begin(first) if begin else project(shape.init(first))
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
        return read(f, x, y) if read else {"kr": kr(f(joined(x, y)))}

    def of_layers(state: State) -> jax.Array:
        layers = constrain(state.nets["f"], state.memory)[0]
        norms = map(weight_constraints.norm_bound, (layer.kernel for layer in layers), shape.inputs(layers))
        return math.prod(norms, start=jnp.asarray(shape.spread))

    of_steps = (bound or of_layers) if constraint == "certified" else None
    return Critic(constraint, init, step, say, potential, slope_of(potential), metric, settle, of_steps)


def kr_alone(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array, key: jax.Array
) -> tuple[jax.Array, Readings]:
    """The loss of critics whose constraint is on their weights."""
    found = kr(f(joined(x, y)))
    return -found, {"kr": found}


def above(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: it must be above 0")
