"""Start a command again whenever it fails: python -m scripts.keep_running [flags] -- COMMAND"""

import sys

from training.command import run

from . import prog


def main() -> None:
    from training.flags import parse_flags
    from training.pods.launching.restarts import Restarts, keep_running

    at = [*sys.argv, "--"].index("--")
    about = f"Start a command again whenever it fails: {prog('keep_running')} [flags] -- COMMAND"
    config = parse_flags(Restarts, prog=prog("keep_running"), args=sys.argv[1:at], description=about)
    if not sys.argv[at + 1 :]:
        raise ValueError("no COMMAND: give it after --")
    sys.exit(keep_running(sys.argv[at + 1 :], config))


if __name__ == "__main__":
    run(main, sys.stderr)
