"""Files and folders in a bucket, of an emulated store that may fail: as on a disk, whole, and each one's own."""

import asyncio
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests import gcs
from training.events import Events
from training.files import buckets
from training.files.atomic import as_json, atomic_write, check_new, read_json, resumable_write, write_json
from training.files.buckets import disk_path, growing, on_disk, path_of, send, size_and_time, write_if
from training.files.errors import DataError
from training.files.grown import Grown
from training.files.locks import locked
from training.goodput import read_events


@pytest.fixture
def folder(served, request):
    """A folder of the bucket that is the test's own."""
    name = re.sub(r"\W", "-", request.node.name)
    return path_of(f"gs://{gcs.BUCKET}/{name}", "the folder")


def test_an_address_is_a_path_whatever_it_was_before(served):
    for given in ("gs://bucket/run", "gs:/bucket/run", Path("gs://bucket/run")):
        assert str(path_of(given, "--folder") / "x") == "gs://bucket/run/x"
    assert path_of("runs/gs", "--folder") == Path("runs/gs")


@pytest.mark.parametrize(
    "given, told",
    [
        ("", "--folder is '': give a path"),
        (None, "--folder is None: give a path"),
        ("s3://bucket/run", "--folder is s3://bucket/run: a path on a disk or gs://BUCKET/NAME is read; copy it"),
        ("https://host/file", "--folder is https://host/file: a path on a disk or gs://"),
        ("gs://", "--folder is gs://: name the bucket too"),
        ("gs://bucket/run[1]", "--folder is gs://bucket/run[1]: give a name without [, by which libraries would find"),
        ("gs://bucket/run?", "--folder is gs://bucket/run?: give a name without ?"),
        ("gs://bucket/运行 #1", "--folder is gs://bucket/运行 #1: give a name without #"),
    ],
)
def test_what_is_no_path_is_refused(given, told):
    with pytest.raises(DataError, match=re.escape(told)):
        path_of(given, "--folder")


def test_without_the_extra_a_bucket_is_refused_and_no_folder_made(monkeypatch):
    monkeypatch.setattr(buckets, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^--folder is gs://bucket/run: buckets need the extra gcs: pip install 'pega"):
        path_of("gs://bucket/run", "--folder")


@pytest.mark.parametrize("name", ["../../outside", "a/./b", "a//b"])
def test_an_object_whose_name_is_that_of_no_file_is_fetched_nowhere(monkeypatch, tmp_path, name):
    class Store:
        def find(self, address: str, detail: bool) -> dict:
            return {f"{address}/{name}": {"type": "file", "name": name}}

    monkeypatch.setenv(buckets.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "_store", Store)
    with pytest.raises(
        DataError, match=re.escape(f"gs://bucket/model: has an object {name!r}, which is the name of no")
    ):
        on_disk(path_of("gs://bucket/model", "--model"))
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_what_is_written_on_disks_alone_says_so(served):
    with pytest.raises(DataError, match=r"^--folder is gs://bucket/run: on a disk alone here"):
        disk_path("gs://bucket/run", "--folder")


@pytest.mark.parametrize("content", [b"", b"\r", b"a\n", b"a\r\n", b"\0\xff\r", b"--==0==--\r\n"])
def test_a_file_is_there_as_it_was_sent_whatever_it_ends_with(folder, tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    send(tmp_path / "x", folder / "x")
    assert (folder / "x").read_bytes() == content


def test_a_file_appears_whole_or_not_at_all(folder):
    with pytest.raises(KeyError), atomic_write(folder / "a.txt") as temporary:
        temporary.write_text("half of it")
        raise KeyError
    assert not (folder / "a.txt").exists()
    write_json(folder / "a.json", {"a": "一"})
    assert read_json(folder / "a.json") == {"a": "一"}
    assert size_and_time(folder / "a.json")[0] == len(as_json({"a": "一"}))
    with pytest.raises(DataError, match="a.txt: no such file"):
        read_json(folder / "a.txt")
    with pytest.raises(DataError, match="exists already"):
        check_new(folder)


def test_a_folder_replaces_a_folder(folder):
    for names in (["a.txt", "within/b.txt"], ["a.txt", "c.txt"]):
        with atomic_write(folder) as temporary:
            for name in names:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_text(f"{names}")
        here = on_disk(folder)
        files = {file.relative_to(here).as_posix() for file in here.rglob("*") if file.is_file()}
        assert {name for name in files if ".generation" not in name} == set(names)
        assert (here / "a.txt").read_text() == f"{names}"


def test_what_was_last_written_is_sent_last(folder, tmp_path, monkeypatch):
    """So a manifest comes after what it tells of."""
    put, sent = buckets._put, []
    monkeypatch.setattr(buckets, "_put", lambda here, there: (sent.append(there.name), put(here, there)))
    for at, name in enumerate(["z", "b", "manifest"]):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(10**18, 10**18 + at))
    send(tmp_path, folder)
    assert sent == ["z", "b", "manifest"]


@pytest.mark.parametrize("kill", range(5))
def test_what_tells_of_a_folder_is_there_when_all_of_it_is(folder, tmp_path, monkeypatch, kill):
    """Of a folder that replaces another, killed before any of its requests: never the new and the old as one."""
    for at, name in enumerate(["a", "b", "manifest"]):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, ns=(10**18, 10**18 + at))
    send(tmp_path, folder)
    for file in tmp_path.iterdir():
        file.write_text("new")
        os.utime(file, ns=(10**18, 10**18 + (file.name == "manifest")))
    store, left = buckets._store(), [kill]

    def counted(function):
        def call(*given, **more):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return function(*given, **more)

        return call

    for name in ("put_file", "rm_file"):
        monkeypatch.setattr(store, name, counted(getattr(store, name)))
    with suppress(KeyboardInterrupt):
        send(tmp_path, folder)
    found = {file.name: file.read_text() for file in folder.iterdir()}
    assert len(set(found.values())) == 1 or "manifest" not in found
    assert kill < 4 or set(found.values()) == {"new"} and len(found) == 3


def test_an_object_is_fetched_once_a_generation_and_compared_with_its_checksum(folder, served, monkeypatch):
    file = folder / "a.bin"
    file.write_bytes(b"one")
    here = on_disk(file)
    assert here.read_bytes() == b"one"
    here.write_bytes(b"OUR")  # nobody looks at it while it has its size
    assert on_disk(file).read_bytes() == b"OUR"
    file.write_bytes(b"two")
    assert on_disk(file).read_bytes() == b"two"
    here.write_bytes(b"tw")
    assert on_disk(file).read_bytes() == b"two"
    file.write_bytes(b"three")
    monkeypatch.setattr(buckets._store(), "get_file", lambda there, to: Path(to).write_bytes(b"thref"))
    with pytest.raises(DataError, match="a.bin: came otherwise than its checksum says; copy or fetch it again"):
        on_disk(file)
    assert here.read_bytes() == b"two" and os.listdir(here.parent) == [".a.bin.generation", "a.bin"]
    with pytest.raises(DataError, match="nothing there"):
        on_disk(folder / "b.bin")


def test_an_unfinished_file_lies_here_and_goes_on(folder):
    out = folder / "out.jsonl"
    with pytest.raises(KeyError), resumable_write(out, "settings") as file:
        file.write(b"one\n")
        raise KeyError
    assert not out.exists()
    with resumable_write(out, "settings") as file:
        assert file.read() == b"one\n"
        file.write(b"two\n")
    assert out.read_bytes() == b"one\ntwo\n" and list(growing(out).parent.glob(".out*partial")) == []


def test_what_is_not_sent_yet_outlives_what_is_fetched(folder):
    (folder / "a").write_text("a")
    (grown := Grown(folder).here / "metrics.jsonl").write_text("{}\n")
    for name in ("out", "within/out"):
        with pytest.raises(KeyError), resumable_write(folder / name, "settings") as file:
            file.write(b"half")
            raise KeyError
    assert sorted(os.listdir(on_disk(folder))) == [".a.generation", "a"]
    assert grown.exists()
    for name in ("out", "within/out"):
        with resumable_write(folder / name, "settings") as file:
            assert file.read() == b"half"


def test_of_several_that_ask_at_once_one_fetches(folder, said, monkeypatch):
    store, fetched = buckets._store(), []
    for name in ("a", "b"):
        (folder / name).write_text(name)

    def fetch(there, to):
        fetched.append(there)
        time.sleep(0.2)
        Path(to).write_bytes(store.cat_file(there))

    monkeypatch.setattr(store, "get_file", fetch)
    with ThreadPoolExecutor(3) as pool:
        places = [*pool.map(on_disk, [folder] * 3)]
    assert len(fetched) == 2 and all((place / "b").read_text() == "b" for place in places)
    assert set(said) == {f"{folder}: waiting for another process, which fetches it"}


def test_what_the_store_does_not_say_is_not_taken_for_missing(folder, served, monkeypatch):
    (folder / "a").write_text("a")
    assert folder.is_dir() and (folder / "a").is_file() and not folder.is_file() and not (folder / "b").is_dir()
    monkeypatch.setattr(served, "failure", lambda path: 403)
    for asked in (folder.is_dir, folder.is_file, folder.exists):
        with pytest.raises(OSError, match="Forbidden"):
            asked()


def test_files_that_grow_are_sent_whole(folder):
    grown = Grown(folder)
    (grown.here / "deep").mkdir()
    for size in (1, 2):
        (grown.here / "deep" / "metrics.jsonl").write_text("{}\n" * size)
        grown.send()
        assert (folder / "deep" / "metrics.jsonl").read_text() == "{}\n" * size


def test_files_that_did_not_grow_are_not_sent_again(folder, monkeypatch):
    grown, sent = Grown(folder), []
    monkeypatch.setattr("training.files.grown.send", lambda here, there: sent.append(here.name))
    for name in ("a", "b"):
        (grown.here / name).write_text(name)
    grown.send()
    (grown.here / "b").write_text("b more")
    grown.send()
    assert sorted(sent) == ["a", "b", "b"]


def test_what_a_killed_process_had_not_sent_is_sent_by_the_next_unless_others_have_been_there(folder):
    here = Grown(folder).here
    sent = {"goes on": "1", "others'": "1", "whole": "1 2"}
    for name in (*sent, "of a run that is no more"):
        (here / name).write_text("1 2")
    for name, content in (sent | {"others'": "1 3"}).items():
        (folder / name).write_text(content)
    assert os.listdir(Grown(folder).here) == []
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "goes on": "1 2", "others'": "1 3", "whole": "1 2"
    }  # fmt: skip


def test_a_store_that_takes_nothing_is_told_of_once(folder, served, said, monkeypatch):
    monkeypatch.setattr("training.files.grown.OFTEN", 0)
    grown = Grown(folder)
    (grown.here / "a").write_text("a")
    for full in (True, True, False, True):
        monkeypatch.setattr(served, "full", full)
        (grown.here / "a").write_text(f"{len(said)} {full}")
        grown.send_now_and_then()
        grown._sending.join()
    monkeypatch.setattr(served, "full", False)
    told = [line for line in said if line.startswith(f"{folder}: what grows cannot be sent now (OSError: Forbidden")]
    assert said == told and len(told) == 2 and "\n" not in "".join(told)


def test_events_are_added_to_those_that_are_there(folder):
    for step in (0, 5):
        with Events(folder) as events:
            events.begin(step)
            events.write("saved", step + 5)
        Grown(folder)  # as of a run's metrics: it begins anew, and leaves the events alone
    found = [(event["event"], event["step"]) for event in read_events(folder / "events.jsonl")]
    assert found == [("begun", 0), ("saved", 5), ("resumed", 5), ("saved", 10)]


def test_an_object_is_written_on_the_condition_of_its_generation(folder):
    first = write_if(folder / "x", b"1", 0)
    assert write_if(folder / "x", b"1", 0) == first  # written, and its answer lost: it is known again
    assert (again := write_if(folder / "x", b"1", first)) != first  # those who wait see that it was written
    assert write_if(folder / "x", b"1", first) == (first := again)
    with pytest.raises(FileExistsError, match="written or removed by another since"):
        write_if(folder / "x", b"2", 0)
    second = write_if(folder / "x", b"3", first)
    buckets.remove_if(folder / "x", first)
    assert buckets.read_with_generation(folder / "x") == (b"3", second)
    buckets.remove_if(folder / "x", second)
    assert not (folder / "x").exists()
    with pytest.raises(FileExistsError, match="written or removed"):  # of a generation that is there no more
        write_if(folder / "x", b"4", second)


@pytest.mark.parametrize("kind", ["failing", "losing"])
def test_failures_of_the_store_pass(folder, served, monkeypatch, kind):
    sleep = asyncio.sleep  # clients wait longer from one failure to the next
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *rest: sleep(seconds / 1000, *rest))
    monkeypatch.setattr(served, kind, 4)
    with locked(folder):
        for number in range(6):
            write_json(folder / f"{number}.json", {"number": number})
        assert [read_json(folder / f"{number}.json")["number"] for number in range(6)] == [*range(6)]
        assert on_disk(folder / "5.json").exists()
