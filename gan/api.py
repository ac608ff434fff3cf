"""What others call: the distance of two sets of points, exactly or by a critic."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gan.critic import Constraint, Critic, Shape
from gan.laws import clouds
from gan.metric import Metric
from gan.named import critic_of_name
from gan.training import train
from gan.transport import exact_w1
from training.arrays import points
from training.ranges import check_number


def w1(x: np.ndarray, y: np.ndarray, metric: Metric = "l2") -> float:
    """The Wasserstein-1 distance of two sets of points [n, D] and [m, D], each point of a set alike in weight:
    exact, in float64.

    Of n = m = 1,000 points it takes a tenth of a second, of 5,000 some seconds to a minute. Source: gan/transport.py,
    which also takes weights. Raises ValueError for one vector where points belong, masked arrays, NaN, none, points of
    different dimensions, and a distance beyond float64.
    """
    return exact_w1(points(x, "x"), points(y, "y"), metric)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What trained critics say of two sets of points; arrays are [seeds]."""

    w1: float  # the mean of kr
    kr: np.ndarray  # mean f(x) - mean f(y)
    objective: np.ndarray  # what the critic itself takes for the distance
    steepest: np.ndarray  # largest gradient of f seen; where it is 1, kr is at most W1, but for the sampling of points
    constraint: Constraint  # how the critic is kept 1-Lipschitz

    @property
    def certified(self) -> bool:
        """The critic, as it was read in the end, cannot be steeper than 1."""
        return self.constraint == "certified"


def critic_w1(
    x: np.ndarray,
    y: np.ndarray,
    critic: str | Callable[[Shape], Critic] = "gp",
    *,
    steps: int = 1000,
    batch: int = 256,
    seeds: int = 3,
    hidden: tuple[int, ...] = (),
) -> Estimate:
    """The same distance as a WGAN's critic has it, trained on points [n, D] and [m, D] that are drawn with replacement.

    critic: a name of gan.objectives.CRITICS, with settings or without ("gp:weight=1"), or what makes one of a shape,
    such as `partial(gradient_penalty, weight=1.0)`. hidden: its layers' features, by default two of max(2 D, 128).
    What it says is read of 4,096 further draws. Critics learn points of unit scale about 0 best, in float32, which
    rounds what is far from 0: W1 of points times c is c W1, and of points moved together the same. Raises ValueError as
    `w1` does, for an unknown critic, for numbers that cannot be, and for training that diverged.
    """
    if not isinstance(critic, str) and not callable(critic):
        raise ValueError(f"critic is {critic!r}: give a name, or what makes a critic of a shape")
    make = critic_of_name(critic) if isinstance(critic, str) else critic
    x, y = points(x, "x"), points(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x of {x.shape[1]} and y of {y.shape[1]} dimensions: they must have as many")
    if not isinstance(hidden, (tuple, list)):
        raise ValueError(f"hidden is {hidden!r}: give a tuple, a number a layer, such as (128, 128)")
    for features in hidden:
        check_number("hidden", features, 1)
    made = make(Shape(size=x.shape[1], hidden=tuple(hidden)))
    if not isinstance(made, Critic):
        raise ValueError(f"critic makes {made!r:.40}: it must make a gan.critic.Critic of a gan.critic.Shape")
    ((last, _),) = deque(train(made, clouds("points", x, y), steps=steps, batch=batch, seeds=seeds), maxlen=1)
    if not np.isfinite(last.kr).all():
        raise ValueError(f"critic {critic}: it says {last.kr}; scale the points to about 1, or take another critic")
    return Estimate(
        w1=float(last.kr.mean()),
        kr=last.kr,
        objective=last.objective,
        steepest=last.steepest,
        constraint=made.constraint,
    )
