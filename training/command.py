"""How every script runs: what a user can mend is one line on stderr and exit status 1, not a traceback;
and a training that was told to stop has a status of its own."""

import atexit
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import NoReturn, TextIO

from training.ending import tell_failing
from training.files.buckets import of_a_store
from training.telling import show

STOPPED = 75  # sysexits.h's EX_TEMPFAIL, the same command goes on: neither finished (0) nor failed (1)
USELESS = 65  # EX_DATAERR: the same command would end so again; of an error whose class has it as `status`


class Stopped(KeyboardInterrupt):
    """A training within something larger was told to stop: so is that."""


def run(main: Callable[[], object], notices: TextIO | None = None) -> None:
    """Calls main, and shows what the library tells on standard output or on `notices`. Where main returns what is
    not `finished`, or is Stopped, the exit status is 75 (STOPPED). ValueError and its kin
    (bad data, an impossible mesh), OSError, too little memory and a stopped training become one line, which has a
    field's name as it was typed."""
    show(notices)
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        if getattr(main(), "finished", True) is False:
            sys.exit(STOPPED)
    except KeyboardInterrupt as error:
        _interrupted(STOPPED if isinstance(error, Stopped) else 1)
    except Exception as error:
        if interrupts:  # a library made something else of it, such as an import that failed
            _interrupted(1)
        if isinstance(error, BrokenPipeError):  # who read it has enough: … | head
            sys.exit(1)
        tell_failing(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        if isinstance(error, ValueError | OSError):
            line = f"error: {as_typed(str(error), sys.argv)}"
            if hasattr(error, "status"):
                print(line, file=sys.stderr)
                sys.exit(error.status)
            sys.exit(line)
        if of_a_store(error):
            sys.exit(f"error: the bucket says: {error}")
        if isinstance(error, MemoryError):
            sys.exit(f"error: out of memory ({error}): give smaller sizes")
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        _flush()


def as_typed(message: str, args: Sequence[str]) -> str:
    """A message that begins with the name of a field, with the flag by which it was given: --steps is 0: …"""
    typed = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
    flags = {flag.rpartition(".")[2].lstrip("-").replace("-", "_"): flag for flag in typed}
    return re.sub(r"^\w+(?= (is |are |has |= |\d))", lambda field: flags.get(field[0], field[0]), message)


def _flush() -> None:
    """What is left goes out, or nowhere where nobody reads it any more, as of `--help | head`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(status: int) -> NoReturn:
    # What the device is still computing loses its memory as Python ends, and crashes: so it ends before.
    atexit.register(partial(_end, status))
    sys.exit("interrupted")


def _end(status: int) -> None:
    sys.stdout.flush()
    os._exit(status)
