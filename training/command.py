"""How every script runs: what a user can mend is one line on stderr and exit status 1, not a traceback."""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tyro.constructors import PrimitiveConstructorSpec


def run(main: Callable[[], None]) -> None:
    """Calls main. ValueError and its kin (bad data, an impossible mesh), OSError, too little memory and a stopped training become one line."""
    interrupts = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        main()
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:
        if interrupts:  # a library made something else of it, such as an import that failed
            _interrupted()
        if isinstance(error, ValueError | OSError):
            sys.exit(f"error: {error}")
        if isinstance(error, MemoryError):
            sys.exit(f"error: out of memory ({error}): give smaller sizes")
        raise
    finally:
        signal.signal(signal.SIGINT, handler)


def _interrupted() -> None:
    # What the device is still computing loses its memory as Python ends, and crashes: so it ends before.
    atexit.register(_end)
    sys.exit("interrupted")


def _end() -> None:
    sys.stdout.flush()
    os._exit(1)


def one_of(names: Iterable[str]) -> "PrimitiveConstructorSpec[str]":
    """Annotated[str, one_of(TABLE)] is a field that a command line shows and checks as one of the table's names."""
    from tyro.constructors import PrimitiveConstructorSpec

    names = tuple(names)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=lambda given: given[0],
        is_instance=lambda value: value in names,
        str_from_instance=lambda value: [value],
        choices=names,
    )


def preset_of(args: Sequence[str], known: Container[str], default: str) -> str:
    """The --preset among a command line's arguments, by which its other defaults go."""
    named = [b for a, b in zip(args, args[1:], strict=False) if a == "--preset"]
    named += [a.split("=", 1)[1] for a in args if a.startswith("--preset=")]
    return named[-1] if named and named[-1] in known else default
