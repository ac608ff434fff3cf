"""A store of Google Cloud's on this machine, for tests: the emulator of gcp-storage-emulator, which several clients may
ask at once, with what it lacks: conditions on an object's generation, and failures on purpose, before a request is
handled or after.

As a command it serves until it is killed: python -m tests.gcs PORT FOLDER [FAILING]. One of FAILING requests fails.
"""

import io
import json
import logging
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import server
from urllib.parse import parse_qs, urlparse

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"
logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)  # an object that is not there is no error


class Handler(RequestHandler):
    """One request at a time, as if the store were one machine."""

    def __init__(self, served: "Served", *args):
        self.served = served
        super().__init__(served.storage, *args)

    def _handle(self, handle) -> None:
        with self.served.lock:
            query = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
            full = self.served.full and self.command in ("POST", "PUT")
            if (status := 403 if full else self.served.failure(self.path)) or not self._meets(query):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return self._refuse(status or 412)
            if answer := self.served.answers.get(self.path):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.wfile.write(answer)
            elif self.served.loses(self.command):
                self._lose(handle)
            else:
                handle()

    def _lose(self, handle) -> None:
        """Done, and nobody hears of it: the connection ends without an answer."""
        answered, self.wfile = self.wfile, io.BytesIO()
        try:
            handle()
            answer = self.wfile.getvalue()
            if "upload_id=" in self.path and b" 200 " in answer.partition(b"\r\n")[0]:
                self.served.answers[self.path] = answer  # who asks about a finished upload hears that it is finished
        finally:
            self.wfile, self.close_connection = answered, True

    def _meets(self, query: dict[str, str]) -> bool:
        """Is the object of the generation that the request asks for?"""
        if "ifGenerationMatch" not in query:
            return True
        parts = urlparse(self.path).path.split("/")
        bucket = parts[parts.index("b") + 1]
        name = query["name"] if self.command == "POST" else _unquoted("/".join(parts[parts.index("o") + 1 :]))
        try:
            generation = self.served.storage.get_file_obj(bucket, name)["generation"]
        except NotFound:
            generation = "0"
        return generation == query["ifGenerationMatch"]

    def _refuse(self, status: int) -> None:
        text = json.dumps({"error": {"code": status, "message": "as asked for"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self._handle(super().do_GET)

    def do_POST(self):
        self._handle(super().do_POST)

    def do_PUT(self):
        self._handle(super().do_PUT)

    def do_PATCH(self):
        self._handle(super().do_PATCH)

    def do_DELETE(self):
        self._handle(super().do_DELETE)

    def log_message(self, *args):
        pass


class Served:
    """The store's content, and which of its requests fail."""

    def __init__(self, folder: str | None = None, failing: int = 0, seed: int = 0):
        self.storage = Storage(use_memory_fs=folder is None, data_dir=folder)
        self.lock = threading.RLock()
        self.failing, self._random = failing, random.Random(seed)
        self.losing = 0  # the answer to one of so many requests that change something is lost
        self.lost = 0  # answers, so far
        self.answers = dict[str, bytes]()  # by which finished uploads are known again
        self.full = False  # takes nothing any more
        buckets.create_bucket(BUCKET, self.storage)

    def failure(self, path: str) -> int:
        """429 or 503 for one of `failing` requests, else 0; a test may put another in its place, by the path."""
        return self._random.choice((429, 503)) if self.failing and not self._random.randrange(self.failing) else 0

    def loses(self, command: str) -> bool:
        lost = command != "GET" and self.losing and not self._random.randrange(self.losing)
        self.lost += bool(lost)
        return bool(lost)


class Quiet(server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # a client that has gone
        pass


def _unquoted(name: str) -> str:
    from urllib.parse import unquote

    return unquote(name)


def environment(port: int) -> dict[str, str]:
    """By which gcsfs and TensorStore ask this machine instead of Google's."""
    address = f"http://127.0.0.1:{port}"
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "of-nobody",
        "GOOGLE_CLOUD_PROJECT": "nobody's",
    }


@contextmanager
def serving(served: Served) -> Iterator[int]:
    """Serves meanwhile; gives the port."""
    with Quiet(("127.0.0.1", 0), partial(Handler, served)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield httpd.server_address[1]
        finally:
            httpd.shutdown()


if __name__ == "__main__":
    port, folder, *failing = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    Quiet(("127.0.0.1", int(port)), partial(Handler, Served(folder, *map(int, failing)))).serve_forever()
