"""Critics by name, with settings: "gp", "gp:weight=1", "c-soft:epsilon=1:metric=l1"; and laws, with sizes: "scale:16".

A critic's settings are those of the function in gan.objectives.CRITICS: its arguments that have a number or a word as
default.
"""

import inspect
import math
import re
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gan.critic import Critic, Shape
from gan.image_laws import classes, halves, marked, squares
from gan.laws import Law, min_funnel, mixture_on_a_line, of_files, scale, shells, shift, with_null_dimensions
from gan.objectives import CRITICS
from training.experiment.cells import digest_of_files
from training.files.images import Images


def critic_of_name(text: str) -> Callable[[Shape], Critic]:
    """What makes it of a shape. Raises ValueError, in a line, for an unknown name or setting, and a value of another
    kind; what is made of it raises it for a number that cannot be."""
    name, *given = text.split(":")
    if name not in CRITICS:
        raise ValueError(f"critic {text!r}: it must be one of {', '.join(CRITICS)}")
    make, settings = CRITICS[name], {}
    known = settings_of(make) if given else {}
    for one in given:
        key, _, value = one.partition("=")
        if key not in known:
            raise ValueError(f"critic {text!r}: {name} has the settings {', '.join(known) or 'none'}")
        if key in settings:
            raise ValueError(f"critic {text!r}: {key} is given twice")
        settings[key] = _parsed(value, *known[key], f"critic {text!r}: {key}")
    return partial(make, **settings) if settings else make


def check_critics(config: Any, names: Collection[str] = CRITICS) -> None:
    """Its field `critics` is one or more of these, each once, with or without settings. Raises ValueError."""
    if not config.critics or len({*config.critics}) < len(config.critics):
        raise ValueError(f"critics is {config.critics}: give one or more, each once")
    for text in config.critics:
        if text.partition(":")[0] not in names:
            raise ValueError(f"critics has {text!r}: it must be one of {', '.join(names)}")
        critic_of_name(text)


def settings_of(make: Callable) -> dict[str, tuple[Any, Any]]:
    """By name (default, type); none of those that the name itself sets."""
    of = getattr(make, "func", make)
    hints, bound = get_type_hints(of), getattr(make, "keywords", {})
    return {
        name: (one.default, hints.get(name))
        for name, one in inspect.signature(of).parameters.items()
        if name not in bound and type(one.default) in (int, float, str)
    }


def _parsed(value: str, default: Any, hint: Any, where: str) -> Any:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and value not in choices:
        raise ValueError(f"{where} is {value!r}: it must be {' or '.join(choices)}")
    if isinstance(default, str):
        return value
    kind: type = type(default)
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where} is {value!r}: it must be a {'whole ' * (kind is int)}number")
    return number


LAWS: dict[str, tuple[Callable[..., Law], tuple[str, ...]]] = {
    "shift": (shift, ("D",)),
    "scale": (scale, ("D",)),
    "shells": (shells, ("D",)),
    "point": (lambda dimensions: shells(dimensions, 1.0, 0.0), ("D",)),
    "mixture": (mixture_on_a_line, ()),
    "null": (lambda dimensions: with_null_dimensions(shells(2), dimensions), ("D",)),
    "funnels": (min_funnel, ("D", "N")),
    "squares": (squares, ("SIDE",)),
    "classes": (classes, ()),
    "halves": (halves, ()),
    "marked": (marked, ()),
}


@cache
def file_name(law: str) -> str:
    """A law's name as a file's: of points in files with what they hold, so that others are another law."""
    kind, *rest = law.split(":")
    if kind != "files":
        return law.replace(":", "-")
    stems = (re.sub(r"[^\w.]+", "_", Path(path).stem)[:40] for path in rest)
    return "-".join((kind, *stems, digest_of_files(rest)))


OF_IMAGES = ("classes", "halves", "marked")  # of --data; squares draw their own


def law_of(name: str, images: Callable[[], Images]) -> Law:
    """The law of a name such as "scale:16" or "funnels:2:4". Raises ValueError with the names there are."""
    kind, *numbers = name.split(":")
    if kind == "files" and len(numbers) == 2:
        return of_files(*numbers)
    make, wanted = LAWS.get(kind, (None, ()))
    if (
        make is None
        or len(numbers) != len(wanted)
        or not all(n.isdecimal() and 1 <= int(n) <= 1 << 14 for n in numbers)
    ):
        known = ", ".join(":".join((kind, *wanted)) for kind, (_, wanted) in LAWS.items())
        known += ", files:P.npy:Q.npy"
        raise ValueError(f"law {name!r}: it must be one of {known}, the letters being numbers from 1")
    return make(images()) if kind in OF_IMAGES else make(*map(int, numbers))
