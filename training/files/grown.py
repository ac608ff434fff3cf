"""Files that grow, of a run in a bucket: no object can."""

import shutil
import threading
import time
from pathlib import Path

from training.files.buckets import growing, in_bucket, send
from training.files.errors import line
from training.telling import tell

OFTEN = 60.0  # seconds


class Grown:
    """The files of a run's folder that grow, which no object can: in a bucket's stead they grow on this machine, in
    `here`, and are sent, each whole, now and then. `here` is empty at first: who adds to a file of the folder writes
    there first what it holds."""

    def __init__(self, folder: Path, name: str = "grown"):
        """name: of `here`, which is another for those who send other files. What a process that was killed on this
        machine had not sent yet is sent before."""
        self.here, self._folder = folder, folder
        self._last, self._sending = time.monotonic(), threading.Thread()
        self._sent, self._failing = dict[Path, tuple[int, int]](), False
        if in_bucket(folder):
            self.here = growing(folder).with_name(f".{folder.name}.{name}")
            for file in self._files():
                if self._goes_on(file):
                    send(file, self._place(file))
            shutil.rmtree(self.here, ignore_errors=True)
            self.here.mkdir(parents=True)

    def send_now_and_then(self, at_once: bool = False) -> None:
        """Sends what has grown, once a minute at most unless `at_once`, while the run goes on."""
        due = at_once or time.monotonic() - self._last > OFTEN
        if in_bucket(self._folder) and due and not self._sending.is_alive():
            self._last, self._sending = time.monotonic(), threading.Thread(target=self._send_or_tell, daemon=True)
            self._sending.start()

    def send(self) -> None:
        """Sends all of it that has grown."""
        if in_bucket(self._folder):
            if self._sending.ident:
                self._sending.join()
            self._send()

    def _send_or_tell(self) -> None:
        try:
            self._send()
            self._failing = False
        except Exception as error:  # of a store that does not answer now: the next time is near
            if not self._failing:
                tell(f"{self._folder}: what grows cannot be sent now ({line(error)}); trying again")
            self._failing = True

    def _send(self) -> None:
        for file in self._files():
            status = file.stat()
            now = status.st_size, status.st_mtime_ns
            if self._sent.get(file) != now:
                send(file, self._place(file))
                self._sent[file] = now

    def _files(self) -> list[Path]:
        return [file for file in self.here.rglob("*") if file.is_file()]

    def _place(self, file: Path) -> Path:
        return self._folder / file.relative_to(self.here).as_posix()

    def _goes_on(self, file: Path) -> bool:
        """Does a file begin with all of its object? Else others have written that since, or it is of another run."""
        try:
            sent = self._place(file).read_bytes()
        except FileNotFoundError:
            return False
        content = file.read_bytes()
        return len(content) > len(sent) and content.startswith(sent)
