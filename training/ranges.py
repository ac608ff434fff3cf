"""What the numbers of a config may be."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

Limits = float | tuple[float, float]  # the least, or (least, bound): below the bound


def check_ranges(config: Any, **ranges: Limits) -> None:
    """Each field by name is a number of its type within these limits, or None where its type has that.

    Raises ValueError, for NaN and infinity too.
    """
    hints = get_type_hints(type(config))
    for name, limits in ranges.items():
        value, kinds = getattr(config, name), get_args(hints[name]) or (hints[name],)
        if value is not None or NoneType not in kinds:
            check_number(name, value, limits, whole=float not in kinds)


def check_number(name: str, value: Any, limits: Limits, *, whole: bool = True) -> None:
    """Raises ValueError for what is no number, or no whole one, and for one outside of the limits; True is none."""
    least, bound = limits if isinstance(limits, tuple) else (limits, math.inf)
    kind: Any = Integral if whole else Real  # NumPy's numbers too
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: it must be a {'whole ' * whole}number")
    if not least <= value < bound:
        wanted = f"{least} or more" if bound == math.inf != value else f"at least {least} and below {bound}"
        raise ValueError(f"{name} is {value}: it must be {wanted}")


def check_lists(config: Any, repeated: bool = False, **allowed: range | Collection[str] | None) -> None:
    """Each field by name has one value or more, each of those allowed (a range, or names) and, unless `repeated`,
    each once.

    Raises ValueError.
    """
    for name, known in allowed.items():
        given = getattr(config, name)
        if not given or not repeated and len({*given}) < len(given):
            raise ValueError(f"{name} is {given}: give one or more" + ", each once" * (not repeated))
        if known is not None and (wrong := [value for value in given if value not in known]):
            wanted = f"from {known[0]:,} to {known[-1]:,}" if isinstance(known, range) else f"one of {', '.join(known)}"
            raise ValueError(f"{name} has {wrong[0]!r}: it must be {wanted}")


def check_choices(config: Any) -> None:
    """Each field that is a Literal has one of its values: a command line sees to that, code does not.
    Raises ValueError."""
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            raise ValueError(f"{name} is {getattr(config, name)!r}: it must be {', '.join(map(str, get_args(kind)))}")
