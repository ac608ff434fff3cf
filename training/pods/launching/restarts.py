"""A command kept running: started again whatever ends it, until it is finished, is told to stop, or cannot begin."""

import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

from training.command import STOPPED, USELESS
from training.files.buckets import path_of
from training.telling import tell

LONGEST = 60.0  # seconds of a pause, but for chance
_NOTE = re.compile(rb"-+|For simplicity, JAX has removed .*")  # below what a traceback ends with


@dataclass(frozen=True, kw_only=True)
class Restarts:
    quick: float = 60.0
    """Seconds after its start within which a failure is a quick one."""
    tries: int = 3
    """Failures in a row, without a new checkpoint between them, after which the loop gives up: quick ones, and such as
    say that the same would befall again, by status 65, as where a loss is no number. Of others it takes ten times as
    many."""
    pause: float = 1.0
    """Seconds before the first restart; each further one waits twice as long, to a minute, and up to half as long
    again by chance, lest all hosts begin at once."""
    folder: str | None = None
    """Of the run, whose checkpoints/ says whether it gets on; by default the command's own --folder."""

    def __post_init__(self):
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}: it must be 1 or more")
        for name in ("quick", "pause"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 0 or more, and finite")


def keep_running(command: Sequence[str], config: Restarts) -> int:
    """Runs the command until its status is 0, and returns that. SIGTERM and SIGINT go on to it, and SIGHUP as SIGTERM,
    as where a terminal is closed, unless that is ignored, as under nohup. Then the loop returns what the command ends
    with, 75 where it dies of the signal, having had nothing to save yet. A training that saved and stopped without this
    loop's being told, as where the notice came to another host, is started again, and has got on.

    Raises ValueError that names the cause, such as the last line of standard error, after `tries` quick failures, and
    OSError for a command that is not there.
    """
    folder, asked = config.folder or _folder_of(command), list[bool]()
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        asked.append(child is not None and child.returncode is None)
        if child is not None:
            child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    heeded = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heeded.append(signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in heeded}
    quick, late, pause = 0, 0, config.pause
    try:
        while not asked:
            steps, began = _steps(folder), time.monotonic()
            # In a session of its own: a terminal's Ctrl-C, or a cluster's signal to all, comes to it once, from here;
            # of a second one a training would die without saving.
            child = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
            if asked and not any(asked):  # before there was a child to tell
                child.send_signal(signal.SIGTERM)
            cause, status, lasted = _watch(child), child.returncode, time.monotonic() - began
            if status == 0 or asked:
                return STOPPED if status < 0 else status
            if status == STOPPED or _steps(folder) - steps:
                quick, late, pause = 0, 0, config.pause
            elif status == USELESS or lasted <= config.quick:
                quick += 1
            else:
                quick, late, pause = 0, late + 1, config.pause
            if quick >= config.tries:
                within = "" if status == USELESS else f" within {config.quick:g} s of the start"
                raise ValueError(f"{quick} failures in a row{within}: {cause}")
            if late >= 10 * config.tries and folder:
                raise ValueError(f"{late} failures in a row without a new checkpoint in {folder}: {cause}")
            seconds = pause * random.uniform(1, 1.5)
            tell(f"{cause}; started again in {seconds:.1f} s")
            until, pause = time.monotonic() + seconds, min(2 * pause, LONGEST)
            while not asked and time.monotonic() < until:
                time.sleep(0.05)  # an Event's lock is no place for a signal's handler
        return STOPPED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(child: subprocess.Popen[bytes]) -> str:
    """Waits for the child's end, its standard error passed through as it comes. Returns what it ended of."""
    assert child.stderr is not None
    last: list[bytes] = []
    reader = threading.Thread(target=_pass_through, args=(child.stderr, last), daemon=True)
    reader.start()
    child.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what it has left behind would keep the devices
    reader.join(5)
    if not reader.is_alive():
        child.stderr.close()
    if child.returncode < 0:
        names = {one.value: one.name for one in signal.Signals}
        return f"killed by {names.get(-child.returncode, f'signal {-child.returncode}')}"
    if child.returncode == STOPPED:
        return "told to stop, and saved"
    said = b"".join(last).decode(errors="replace").strip()
    said = said[max(said.rfind("error: "), 0) :]  # a bar's line may be before it
    return f"status {child.returncode}: {said}" if said else f"status {child.returncode}, without a word"


def _pass_through(source: IO[bytes], last: list[bytes]) -> None:
    """last: is given the last line that says something; a bar's lines end with carriage returns."""

    def show(text: bytes) -> None:
        with suppress(OSError):  # nobody reads it any more: the child goes on all the same
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()

    line = b""
    while part := os.read(source.fileno(), 1 << 16):
        show(part)
        *ended, line = (line[-10_000:] + part).replace(b"\r", b"\n").split(b"\n")
        last[:] = [*last, *filter(_says, ended)][-1:]
    if line:
        show(b"\n")
        last[:] = [line] if _says(line) else last


def _says(line: bytes) -> bool:
    return bool(line.strip()) and not _NOTE.fullmatch(line.strip())


def _folder_of(command: Sequence[str]) -> str | None:
    given = [b for a, b in zip(command, command[1:], strict=False) if a == "--folder"]
    given += [arg.partition("=")[2] for arg in command if arg.startswith("--folder=")]
    return given[-1] if given else None


def _steps(folder: str | None) -> frozenset[str]:
    """The names in the folder's checkpoints/; none where it cannot be listed."""
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it tells of each failure in many lines
    with suppress(Exception):  # a store's clients have errors of their own
        if folder:
            return frozenset(one.name for one in (path_of(folder, "--folder") / "checkpoints").iterdir())
    return frozenset()
