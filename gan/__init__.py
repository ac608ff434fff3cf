"""How well critics approximate the Wasserstein-1 distance, and what that buys a GAN.

One convention everywhere: W1(P, Q) = max E_P f - E_Q f over 1-Lipschitz f, so a critic f is high on x ~ P and low on
y ~ Q, and what is reported is that difference of means, a positive number, without any penalty.

Truth         metric (the ground cost and its dual norm), transport (exact and regularised, of finite samples), bounds
              (of all points of two large samples), laws and image_laws (pairs whose distance is known; threefry draws
              from them), files (of points and images)
Critics       critic (what one is), objectives (all of them, and their penalties), mover (one beside a learned map),
              certified (those that cannot be steep), named (with settings; laws by name), networks, weight_constraints,
              lipschitz (certified layers), training (one on two laws)
GANs          trainer (a generator against a critic), program (the same for the engine), quality (of what it makes)
experiments/  each one command of scripts/wgan.py
benchmark/    others' published figures, and the funnels they are of

api is what a program calls, by names of this package (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gan.api import Estimate, critic_w1, w1

__all__ = ["Estimate", "critic_w1", "w1"]


def __getattr__(name: str) -> Any:
    """What others call, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gan import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
