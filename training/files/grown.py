"""Files that grow, of a run in a bucket: no object can."""

import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from training.files.buckets import growing, in_bucket, send

OFTEN = 60.0  # seconds


class Grown:
    """The files of a run's folder that grow, which no object can: in a bucket's stead they grow on this machine, in
    `here`, and are sent, each whole, now and then. What is in the folder already is there first."""

    def __init__(self, folder: Path, name: str = "grown"):
        """name: of `here`, which is another for those who send other files."""
        self.here, self._folder = folder, folder
        self._sent, self._sending = time.monotonic(), threading.Thread()
        if in_bucket(folder):
            self.here = growing(folder).with_name(f".{folder.name}.{name}")
            shutil.rmtree(self.here, ignore_errors=True)
            self.here.mkdir(parents=True)

    def send_now_and_then(self) -> None:
        """Sends what has grown, once a minute at most, while the run goes on."""
        if in_bucket(self._folder) and time.monotonic() - self._sent > OFTEN and not self._sending.is_alive():
            self._sent, self._sending = time.monotonic(), threading.Thread(target=self._send_or_wait, daemon=True)
            self._sending.start()

    def send(self) -> None:
        """Sends all of it."""
        if in_bucket(self._folder):
            if self._sending.ident:
                self._sending.join()
            self._send()

    def _send_or_wait(self) -> None:
        with suppress(Exception):  # of a store that does not answer now: the next time is near
            self._send()

    def _send(self) -> None:
        for file in [file for file in self.here.rglob("*") if file.is_file()]:
            send(file, self._folder / file.relative_to(self.here).as_posix())
