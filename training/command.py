"""How every script runs: what a user can mend is one line on stderr and exit status 1, not a traceback."""

import sys
from collections.abc import Callable, Container, Sequence


def run(main: Callable[[], None]) -> None:
    """Calls main. ValueError and its kin (bad data, an impossible mesh), OSError, too little memory and a stopped training become one line."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except MemoryError as error:
        sys.exit(f"error: out of memory ({error}): give smaller sizes")


def preset_of(args: Sequence[str], known: Container[str], default: str) -> str:
    """The --preset among a command line's arguments, by which its other defaults go."""
    named = [b for a, b in zip(args, args[1:], strict=False) if a == "--preset"]
    named += [a.split("=", 1)[1] for a in args if a.startswith("--preset=")]
    return named[-1] if named and named[-1] in known else default
