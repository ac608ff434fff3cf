"""How every script runs: what a user can mend is one line on stderr and exit status 1, not a traceback."""

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Calls main. ValueError and its kin (bad data, an impossible mesh), OSError and a stopped training become one line."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
