"""Critics by name, with settings: "gp", "gp:weight=1", "c-soft:epsilon=1:metric=l1".

The settings are those of the function in gan.objectives.CRITICS: its arguments that have a number or a word as default.
"""

import inspect
import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gan.critic import Critic, Shape
from gan.objectives import CRITICS


def critic_of_name(text: str) -> Callable[[Shape], Critic]:
    """What makes it of a shape. Raises ValueError, in a line, for an unknown name or setting, and a value of another
    kind; what is made of it raises it for a number that cannot be."""
    name, *given = text.split(":")
    if name not in CRITICS:
        raise ValueError(f"critic {text!r}: it must be one of {', '.join(CRITICS)}")
    make, settings = CRITICS[name], {}
    known = _settings(make) if given else {}
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


def _settings(make: Callable) -> dict[str, tuple[Any, Any]]:
    """By name (default, type); none of those that the name itself sets."""
    of = getattr(make, "func", make)
    hints, bound = get_type_hints(of), getattr(make, "keywords", {})
    return {
        name: (one.default, hints.get(name))
        for name, one in inspect.signature(of).parameters.items()
        if name not in bound and isinstance(one.default, bool | int | float | str)
    }


def _parsed(value: str, default: Any, hint: Any, where: str) -> Any:
    choices = get_args(hint) if get_origin(hint) is Literal else ("true", "false") if isinstance(default, bool) else ()
    if choices:
        if value not in choices:
            raise ValueError(f"{where} is {value!r}: it must be {' or '.join(choices)}")
        return value == "true" if isinstance(default, bool) else value
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
