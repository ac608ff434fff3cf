"""Position encodings, the one attention function, and the models built on them.

positions/    angles, sinusoidal, rotary, buckets; beyond the trained length: extension, rerope; their laws: analysis;
              of several coordinates: golden, sections, normalised; that do not commute: blocks, spherical, lie
layers/       attention, its masks, kernels (flash/: for TPUs) and dropout; products and norms (primitives), blocks
              (transformer), cross_entropy
decoding/     greedy, drawn and beam search over any decoder, which is four functions
encoder/      RoFormer and BERT, masked and prefix language model, pretraining; load, huggingface (weights in and out)
vit/          the same blocks over the patches of an image (model), told apart by positions
report/       one page on what any encoding does
experiments/  longer text than trained on (lengths); moved and enlarged digits

api is what a program calls, by names of this package (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rope.api import rotate

__all__ = ["rotate"]


def __getattr__(name: str) -> Any:
    """What others call, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rope import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
