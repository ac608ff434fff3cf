"""Command lines out of frozen dataclasses, and presets: a preset is the value that a command's flags then change."""

import io
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from traceback import walk_tb
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

# The fields of a part of a config are flags of the whole: Annotated[Part, FLAT].
# Parts of it in turn keep their names, as --mesh.fsdp.
FLAT = tyro.conf.arg(name="")

Config = TypeVar("Config")


def shown_as(value: str) -> Any:
    """Annotated[str, shown_as("NAME[:SETTING=VALUE]")] is a field whose value --help shows so; the config checks it."""
    return tyro.conf.arg(metavar=value)


def flag(name: str) -> str:
    """As a field is written on the command line."""
    return "--" + name.replace("_", "-")


def one_of(names: Iterable[str]) -> PrimitiveConstructorSpec[str]:
    """Annotated[str, one_of(TABLE)] is a field that a command line shows and checks as one of the table's names."""
    names = tuple(names)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=lambda given: given[0],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [value],
        choices=names,
    )


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with these of its flags changed, each by its name, whichever flat part of the config has it; such a
    part itself is no flag.

    A list becomes a tuple, a Path a string. Raises ValueError for a name or a kind of value that the config does not
    have.
    """
    left = dict(settings)
    made = _changed(config, left)
    if left:
        raise ValueError(f"no setting {min(left)!r}: it must be one of {', '.join(sorted(_names(config)))}")
    return made


def _changed(config: Any, left: dict[str, Any]) -> Any:
    """Takes from `left` what is changed."""
    found = _fields(config)
    parts = {name: _changed(part, left) for name, (part, flat) in found.items() if flat}
    given = {name: _plain(left.pop(name)) for name, (_, flat) in found.items() if name in left and not flat}
    hints = get_type_hints(type(config))
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} is {value!r}: it must be {_shown(hints[name])}")
    return replace(config, **parts, **given)


def _fields(config: Any) -> dict[str, tuple[Any, bool]]:
    """Each field's value, and whether its fields are flags of the whole."""
    hints = get_type_hints(type(config), include_extras=True)
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: (x, is_dataclass(x) and get_origin(hints[name]) is Annotated) for name, x in values.items()}


def _names(config: Any) -> Iterator[str]:
    for name, (value, flat) in _fields(config).items():
        yield from _names(value) if flat else (name,)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, Path) else value


def _fits(value: Any, hint: Any) -> bool:
    kind, args = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in args
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in args)
    if kind is tuple:
        each = args[:1] * len(value) if isinstance(value, tuple) and args[-1] is ... else args
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, value, each))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def parse_preset(
    kind: type[Config],
    presets: Container[str],
    default_of: Callable[[str], Config],
    default: str,
    *,
    args: Sequence[str] | None = None,
    prog: str,
    description: str | None = None,
) -> Config:
    """The flags given, and for the rest what goes with the --preset given, else with `default`."""
    args = sys.argv[1:] if args is None else args
    named = [b for a, b in zip(args, args[1:], strict=False) if a == "--preset"]
    named += [a.split("=", 1)[1] for a in args if a.startswith("--preset=")]
    preset = named[-1] if named and named[-1] in presets else default
    options = {"default": default_of(preset), "description": description}
    return parse_flags(kind, args=args, prog=prog, **options)


def parse_flags(kind: Callable[..., Config], *, args: Sequence[str] | None = None, prog: str, **options: Any) -> Config:
    """What the flags make of a config's class, or of a function of configs, which is to run nothing yet: standard error
    is held back. Raises ValueError as configs do; what is no flag, or no value of its kind, ends the process.
    """
    return _plainly(lambda given: tyro.cli(kind, args=given, prog=prog, **options), args)


def parse_command(
    kinds: Mapping[str, Callable[..., Any]], *, args: Sequence[str] | None = None, prog: str, description: str
) -> Any:
    """The same of the kind that the first word names."""
    cli = tyro.extras.subcommand_cli_from_dict
    return _plainly(lambda given: cli({**kinds}, args=given, prog=prog, description=description), args)


def masked(text: str) -> str:
    """Without the URLs in it: that of a webhook is a secret, under whatever flag it was typed."""
    return re.sub(r"(?i)https?://\S+", "https://…", text)


def _plainly(parse: Callable[[Sequence[str]], Config], args: Sequence[str] | None) -> Config:
    """Lets the ValueError of a config through that is being made of flags; the library would show it in a box, under
    the name that the part of the config has in the code. What the library itself refuses is shown without URLs."""
    args = sys.argv[1:] if args is None else args
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            return parse(args)
    except SystemExit as left:
        if refused := _refusal(left):
            shown = io.StringIO()
            raise refused from None
        plain = [masked(arg) for arg in args]
        if left.code and plain != [*args]:
            shown = io.StringIO()  # what was shown may have a URL on several lines
            with redirect_stderr(shown), suppress(SystemExit):
                parse(plain)
        raise
    finally:
        sys.stderr.write(shown.getvalue())


def _refusal(error: BaseException) -> ValueError | None:
    """The ValueError of a config's own checks that led to this error: one that passed a __post_init__."""
    while cause := error.__context__:
        passed = (frame.f_code.co_name for frame, _ in walk_tb(cause.__traceback__))
        if isinstance(cause, ValueError) and "__post_init__" in passed:
            return cause
        error = cause
    return None
