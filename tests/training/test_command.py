"""How a script ends: what a user can mend is one line and status 1, and a fault of the program is a traceback."""

import atexit
import signal
from dataclasses import make_dataclass
from typing import Annotated, Literal

import pytest
import tyro

from training.command import run
from training.flags import one_of
from training.loop import Diverged


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("no such mesh"), OSError("disk full"), Diverged("step 8: nan")])
def test_what_a_user_can_mend_is_one_line(error):
    with pytest.raises(SystemExit) as left:
        run(lambda: fail(error))
    assert left.value.code == f"error: {error}"  # printed to stderr with status 1, as sys.exit does with any string


@pytest.fixture(autouse=True)
def at_exit(monkeypatch) -> list:
    called = []
    monkeypatch.setattr(atexit, "register", called.append)
    return called


def test_an_interruption_and_faults(at_exit):
    with pytest.raises(SystemExit) as left:
        run(lambda: fail(KeyboardInterrupt()))
    assert left.value.code == "interrupted" and len(at_exit) == 1
    with pytest.raises(SystemExit) as left:
        run(lambda: fail(MemoryError("9 GiB")))
    assert left.value.code == "error: out of memory (9 GiB): give smaller sizes"
    with pytest.raises(KeyError):
        run(lambda: fail(KeyError("a fault")))
    run(lambda: None)


def test_an_interruption_that_a_library_made_something_else_of():
    def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initializing the extension") from None

    with pytest.raises(SystemExit, match="interrupted"):
        run(main)


@pytest.mark.parametrize("args", [["--help"], ["--preset", "nope"], ["--preset"]])
def test_a_tables_names_are_shown_and_checked_as_choices(args, capsys):
    told = []
    for kind in (Annotated[str, one_of({"tiny": 1, "large": 2})], Literal["tiny", "large"]):
        config = make_dataclass("Config", [("preset", kind, "tiny")], frozen=True)
        with pytest.raises(SystemExit):
            tyro.cli(config, prog="it", args=args)
        told.append(capsys.readouterr())
        assert tyro.cli(config, args=["--preset", "large"]) == config("large")
    assert told[0] == told[1] and "preset" in f"{told[0]}"
