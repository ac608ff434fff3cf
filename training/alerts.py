"""What befalls a run, told elsewhere: to a webhook, and to Weights & Biases."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.ending import before_failing
from training.events import Diverged, listeners
from training.files.errors import DataError
from training.telling import tell

_TIMEOUT = 10.0  # seconds
_SELDOM = 60.0  # seconds between two alerts of updates that are skipped
_TOLD = ("diverged", "skipped", "rewound", "stopped", "finished")


def check_url(url: str) -> None:
    """Raises DataError, without the URL, which is a secret: who knows it can write there."""
    if not url.startswith(("http://", "https://")):
        raise DataError("alert is no URL: give http://… or https://…")


class Alert:
    """Posts {"text": …} as JSON, which Slack, Mattermost, Discord (its …/slack) and Google Chat take, in threads. What
    cannot be sent is told of once, and ends nothing."""

    def __init__(self, url: str):
        self._url, self._threads, self._failed = url, list[threading.Thread](), False
        self._skipped = -float("inf")

    def __call__(self, folder: Path, row: dict[str, Any]) -> None:
        """A listener of training.events."""
        name = row.get("event")
        if name not in _TOLD:
            return
        if name == "skipped":
            if time.monotonic() - self._skipped < _SELDOM:
                return
            self._skipped = time.monotonic()
        why = f": {row['why']}" if "why" in row else ""
        self.send(f"{folder}: {name} {'to' if name == 'rewound' else 'at'} step {row['step']:,}{why}")

    def send(self, text: str) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._post, args=(text,), daemon=True))
        self._threads[-1].start()

    def _post(self, text: str) -> None:
        try:
            body = json.dumps({"text": text}).encode()
            asked = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=_TIMEOUT):
                pass
        except Exception as error:  # of many kinds, whose messages may have the URL
            if not self._failed:
                self._failed = True
                status = f" {error.code}" if isinstance(error, urllib.error.HTTPError) else ""
                tell(f"an alert could not be sent ({type(error).__name__}{status}); the run goes on")

    def wait(self) -> None:
        """Until all are sent, or have failed to be."""
        until = time.monotonic() + 2 * _TIMEOUT
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))


@contextmanager
def alerting(url: str, folder: Path) -> Iterator[None]:
    """Alerts of what befalls the runs within, and of an error that ends them."""
    alert = Alert(url)

    def failing(why: str) -> None:
        alert.send(f"{folder}: failed: {why[:300]}")
        alert.wait()

    listeners.append(alert)
    before_failing.append(failing)  # of an end from elsewhere, such as another process's
    try:
        yield
    except Exception as error:
        if not isinstance(error, Diverged):  # which is told already
            alert.send(f"{folder}: failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")
        raise
    finally:
        before_failing.remove(failing)
        listeners.remove(alert)
        alert.wait()
