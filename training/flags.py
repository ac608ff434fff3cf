"""Command lines out of frozen dataclasses, and presets: a preset is the value that a command's flags then change."""

import sys
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

# The fields of a part of a config are flags of the whole: Annotated[Part, FLAT]. Parts of it in turn keep their names, as --mesh.fsdp.
FLAT = tyro.conf.arg(name="")

Config = TypeVar("Config")


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
    return tyro.cli(kind, prog=prog, args=args, default=default_of(preset), description=description)
