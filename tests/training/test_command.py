"""How a script ends: what a user can mend is one line and status 1, and a fault of the program is a traceback."""

import atexit
import signal
import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from training.command import STOPPED, Stopped, as_typed, run
from training.flags import FLAT, one_of, parse_command, parse_flags
from training.loop import Diverged, Trained
from training.ranges import check_ranges

ROOT = Path(__file__).parents[2]


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("no such mesh"), OSError("disk full"), Diverged(8, "nan", "stopped")])
def test_what_a_user_can_mend_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as left:
        run(lambda: fail(error))
    if isinstance(error, Diverged):
        assert left.value.code == 65 and capsys.readouterr().err == f"error: {error}\n"
    else:
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


def test_a_training_that_was_told_to_stop_has_a_status_of_its_own(at_exit, monkeypatch):
    with pytest.raises(SystemExit) as left:
        run(lambda: Trained(None, finished=False))
    assert left.value.code == STOPPED == 75
    run(lambda: Trained(None, finished=True))
    with pytest.raises(SystemExit, match="interrupted"):
        run(lambda: fail(Stopped()))
    ended = []
    monkeypatch.setattr("os._exit", ended.append)
    for end in at_exit:
        end()
    assert ended == [STOPPED]


def test_an_interruption_that_a_library_made_something_else_of():
    def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initializing the extension") from None

    with pytest.raises(SystemExit, match="interrupted"):
        run(main)


@pytest.mark.parametrize("lines", [1, 100_000])  # what is left is written at the end, or long before
def test_who_reads_no_further_is_no_error(lines):
    code = f"from training.command import run; run(lambda: print('line\\n' * {lines}, end=''))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() in (0, 1)


@dataclass(frozen=True)
class Part:
    steps: int = 3

    def __post_init__(self):
        check_ranges(self, steps=1)


@dataclass(frozen=True)
class Whole:
    flat: Annotated[Part, FLAT] = Part()
    loop: Part = Part()
    samples: int = 5

    def __post_init__(self):
        check_ranges(self, samples=0)


def whole(whole: Annotated[Whole, FLAT] = Whole()) -> Whole:  # noqa: B008
    return whole


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--steps", "0"], "--steps is 0: it must be 1 or more"),
        (["--steps=0"], "--steps is 0: it must be 1 or more"),
        (["--loop.steps", "0"], "--loop.steps is 0: it must be 1 or more"),
        (["--samples", "-1"], "--samples is -1: it must be 0 or more"),
    ],
)
@pytest.mark.parametrize("kind", [Whole, whole])
def test_what_a_config_refuses_is_one_line_that_names_the_flag_as_typed(args, line, kind, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["it", *args])
    with pytest.raises(SystemExit) as left:
        run(lambda: fail(AssertionError(parse_flags(kind, prog="it"))))
    assert left.value.code == f"error: {line}" and capsys.readouterr() == ("", "")


def test_what_is_no_value_of_a_flag_is_told_by_the_parser(capsys):
    for args, words in ((["--steps", "many"], "--steps"), (["--stepz", "1"], "--steps")):
        with pytest.raises(SystemExit, match="2"):
            parse_flags(Whole, prog="it", args=args)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--alrt", "--alrt=", "--steps"])
def test_a_url_is_shown_in_no_refusal_of_a_flag(flag, capsys):
    """Though the box of the refusal cuts a long one into lines."""
    url = f"https://hooks.example/{'SECRET/' * 30}"
    args = ["--samples", "1", *([flag + url] if flag.endswith("=") else [flag, url])]
    for parse in (
        lambda: parse_flags(Whole, prog="it", args=args),
        lambda: parse_command({"whole": Whole, "part": Part}, prog="it", args=["whole", *args], description="d"),
    ):
        with pytest.raises(SystemExit, match="2"):
            parse()
        said = capsys.readouterr().err
        assert "https://…" in said and flag.rstrip("=") in said and "SEC" not in said and "CRET" not in said


def test_a_message_that_begins_with_no_field_stays(tmp_path):
    args = ["it", "--data", "steps", "--batch-size=8", "--shape.size", "1"]
    for message, told in [
        ("data/some.txt: no such file", "data/some.txt: no such file"),
        ("data is empty: name files", "--data is empty: name files"),
        ("batch_size 8 cannot be cut", "--batch-size 8 cannot be cut"),
        ("size = 1: give 2", "--shape.size = 1: give 2"),
        ("steps is 0: it must be 1", "steps is 0: it must be 1"),
    ]:
        assert as_typed(message, args) == told


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
