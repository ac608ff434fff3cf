"""What befalls a run is posted to a webhook; one that is slow or broken ends nothing, and its URL is a secret."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.listening import listening
from tests.training.test_loop import CONFIG, broken, run
from training import alerts
from training.launch import LaunchConfig, hold
from training.loop import Diverged

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(status: int = 200, wait: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """A webhook's URL, and the texts that came."""
    texts: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/secret" and self.headers["Content-Type"] == "application/json"
            texts.extend(json.loads(body).values())
            time.sleep(wait)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/secret", texts
        finally:
            server.shutdown()
            thread.join()


def test_what_befalls_a_run_is_posted(tmp_path):
    with serving() as (url, texts), hold(tmp_path, LaunchConfig(alert=url)):
        run(tmp_path / "a", replace(CONFIG, on_nan="skip"), train=broken(6, 7))
        run(tmp_path / "b", replace(CONFIG, on_nan="rewind"), train=broken(7))
    assert len(texts) == 4  # the second skipped update came too soon after the first
    assert any(text.startswith(f"{tmp_path / 'a'}: skipped at step 7: cross_entropy is nan") for text in texts)
    assert any(text.startswith(f"{tmp_path / 'b'}: rewound to step 6: step 8: ") for text in texts)
    assert {f"{tmp_path / x}: finished at step 12" for x in "ab"} < set(texts)
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_an_error_and_a_divergence_are_posted_once(tmp_path):
    with serving() as (url, texts):
        with pytest.raises(OSError), hold(tmp_path, LaunchConfig(alert=url)):
            raise OSError("the disk is full\nand more")
        with pytest.raises(Diverged), hold(tmp_path, LaunchConfig(alert=url)):
            run(tmp_path, train=broken(7))
    assert texts[0] == f"{tmp_path}: failed: OSError: the disk is full"
    assert len(texts) == 2 and texts[1].startswith(f"{tmp_path}: diverged at step 8: ")


@pytest.mark.parametrize("kind", ["refused", "broken", "slow", "no host"])
def test_what_cannot_be_sent_is_told_once_and_ends_nothing(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(alerts, "_TIMEOUT", 0.5)
    with serving(404 if kind == "refused" else 200, 2 if kind == "slow" else 0) as (url, _):
        url = {"broken": "http://127.0.0.1:1/secret", "no host": "http:///secret x"}.get(kind, url)
        began = time.monotonic()
        with listening() as lines, hold(tmp_path, LaunchConfig(alert=url)):
            run(tmp_path, replace(CONFIG, steps=3, on_nan="skip"), train=broken(1))
        assert time.monotonic() - began < 20
    (line,) = [line for line in lines if "alert" in line]
    assert line.startswith("an alert could not be sent (") and "secret" not in line
    assert ("HTTPError 404" in line) == (kind == "refused")


def test_the_url_is_neither_shown_nor_told():
    assert "secret" not in repr(LaunchConfig(alert="https://hooks/secret"))
    command = [sys.executable, "-m", "scripts.pretrain", "--alert", "hooks/secret"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --alert is no URL: give http://… or https://…\n"


def test_rows_and_events_go_to_weights_and_biases(tmp_path, monkeypatch):
    """Offline, into the run's folder, where no argument of the command line is kept."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sys, "argv", ["pretrain", "--alert", "https://hooks/secret"])
    with hold(tmp_path, LaunchConfig(wandb="toy")):
        run(tmp_path, replace(CONFIG, steps=3))
    (kept,) = tmp_path.rglob("*.wandb")
    said = kept.read_bytes()
    assert b"eval_loss" in said and b"finished" in said
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert files and not any(b"hooks/secret" in path.read_bytes() for path in files)


def test_without_its_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pegasus-zh\[wandb\]"), hold(tmp_path, LaunchConfig(wandb="toy")):
        pass
