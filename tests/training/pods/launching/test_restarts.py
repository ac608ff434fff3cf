"""The loop that starts a command again, on real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.pods.launching.restarts import Restarts

ROOT = Path(__file__).parents[4]
# Each start adds a line to the file, and does what the line's number says.
CHILD = """
import os, signal, sys, time
from pathlib import Path
number = len(open("starts", "a+").writelines(["x"]) or open("starts").read())
"""


def loop(tmp_path: Path, code: str, *flags: str) -> subprocess.Popen[str]:
    command = ["--pause", "0.01", *flags, "--", sys.executable, "-c", CHILD + code, "--folder", "run"]
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.keep_running", *command], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def ended(tmp_path: Path, code: str, *flags: str) -> tuple[int, str, list[str], int]:
    """(status, stdout, lines of stderr, starts)."""
    process = loop(tmp_path, code, *flags)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err.splitlines(), len((tmp_path / "starts").read_text())


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_status_0_ends_it_and_another_one_starts_it_again(tmp_path):
    code = "print('out', flush=True); print('err', file=sys.stderr); sys.exit(7 if number < 3 else 0)"
    status, out, err, starts = ended(tmp_path, code)
    assert (status, out, starts) == (0, "out\n" * 3, 3)
    again = "status 7: err; started again in 0.0 s"
    assert err == ["err", again, "err", again, "err"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (r"sys.stderr.write('a\nerror: no such file: x y\n\n'); sys.exit(1)", "status 1: error: no such file: x y"),
        (r"sys.stderr.write('bar 1%\rbar 2%'); sys.exit(1)", "status 1: bar 2%"),
        ("sys.stderr.write('bar 2%error: taken over\\n'); sys.exit(70)", "status 70: error: taken over"),
        (
            r"sys.stderr.write('XlaRuntimeError: y\n--------\nFor simplicity, JAX has removed its internal frames\n')"
            "; sys.exit(1)",
            "status 1: XlaRuntimeError: y",
        ),
        ("sys.exit(4)", "status 4, without a word"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
    ],
)
def test_quick_failures_in_a_row_end_it_with_their_cause(tmp_path, code, cause):
    status, _, err, starts = ended(tmp_path, code, "--tries", "2")
    assert (status, starts) == (1, 2)
    assert err[-1] == f"error: 2 failures in a row within 60 s of the start: {cause}"


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        ("Path('run/checkpoints', str(number)).mkdir(parents=True)", ()),
        ("number % 2 or Path('run/checkpoints', str(number)).mkdir(parents=True)", ("--tries", "2")),
        ("time.sleep(0.02)", ("--quick", "0.01")),
    ],
    ids=["a checkpoint", "a checkpoint between two", "a long time"],
)
def test_what_gets_on_is_started_again_as_often_as_it_takes(tmp_path, code, flags):
    status, _, _, starts = ended(tmp_path, f"{code}\nsys.exit(1 if number < 6 else 0)", *flags)
    assert (status, starts) == (0, 6)


def test_what_fails_late_or_would_fail_so_again_is_not_started_for_ever(tmp_path):
    status, _, err, starts = ended(
        tmp_path, "print('nan', file=sys.stderr); sys.exit(65)", "--quick", "0", "--tries", "2"
    )
    assert (status, starts, err[-1]) == (1, 2, "error: 2 failures in a row: status 65: nan")
    (tmp_path / "starts").unlink()
    status, _, err, starts = ended(tmp_path, "time.sleep(0.02); sys.exit(1)", "--quick", "0.01", "--tries", "1")
    told = "error: 10 failures in a row without a new checkpoint in run: status 1, without a word"
    assert (status, starts, err[-1]) == (1, 10, told)


def test_what_dies_of_the_signal_had_nothing_to_save(tmp_path):
    process = loop(tmp_path, "open('ready', 'w'); time.sleep(60)")
    wait_for(tmp_path / "ready")
    process.terminate()
    assert process.communicate(timeout=60) == ("", "") and process.returncode == 75


def test_a_training_that_another_host_stopped_is_started_again(tmp_path):
    status, _, err, starts = ended(tmp_path, "sys.exit(75 if number < 5 else 0)", "--tries", "1")
    assert (status, starts) == (0, 5) and err[0] == "told to stop, and saved; started again in 0.0 s"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_on_to_the_command_once_and_ends_the_loop(tmp_path, number):
    code = """
def stop(number, frame):
    print("saved after", number, flush=True)
    sys.exit(75)
for one in (signal.SIGTERM, signal.SIGINT):
    signal.signal(one, stop)
open("ready", "w")
time.sleep(60)
"""
    process = loop(tmp_path, code)
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    heard = signal.SIGTERM if number == signal.SIGHUP else number
    assert (process.returncode, out, err) == (75, f"saved after {heard:d}\n", "")
    assert (tmp_path / "starts").read_text() == "x"


def test_a_signal_in_a_pause_ends_the_loop(tmp_path):
    process = loop(tmp_path, "sys.exit(1)", "--pause", "60")
    assert process.stderr.readline().startswith("status 1, without a word; started again in ")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75 and (tmp_path / "starts").read_text() == "x"


def test_what_the_command_leaves_behind_is_ended(tmp_path):
    code = """
import subprocess
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("left", "w").write(str(left.pid))
"""
    assert ended(tmp_path, code)[0] == 0
    left = Path("/proc", (tmp_path / "left").read_text(), "stat")
    deadline = time.monotonic() + 10
    while left.exists() and left.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left.exists() or left.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: no COMMAND: give it after --"),
        (["--tries", "0", "--", "true"], "error: --tries is 0: it must be 1 or more"),
        (["--", "no-such-command"], "error: [Errno 2] No such file or directory: 'no-such-command'"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, line):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.keep_running", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, line + "\n")


def test_pauses_that_cannot_be():
    with pytest.raises(ValueError, match="pause is nan: it must be 0 or more"):
        Restarts(pause=float("nan"))
