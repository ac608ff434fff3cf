"""What is written is there whole or not at all:
after an error, after a kill at any point, with leftovers of any kind."""

import errno
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.files.atomic import atomic_write, check_out_file, read_objects, resumable_write, write_bytes, write_json
from training.files.errors import DataError

ROOT = Path(__file__).parents[3]
DEAD = 4_999_999  # above every kernel's largest process id
# Writes ("file" or "folder", path, content, process id),
# and is killed before the so-manieth call that changes the disk.
KILLED = """
import os, sys
from pathlib import Path
from training.files.atomic import atomic_write, write_bytes

kind, path, content, process, left = sys.argv[1:]
left, os.getpid = [int(left)], lambda: int(process)

def counted(function):
    def call(*arguments, **options):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return function(*arguments, **options)
    return call

for module, names in ((os, ("replace", "fsync", "unlink", "rmdir", "mkdir")), (Path, ("write_bytes",))):
    for name in names:
        setattr(module, name, counted(getattr(module, name)))
"""


def write(kind: str, path: Path, content: bytes) -> None:
    if kind == "file":
        return write_bytes(path, content)
    with atomic_write(path) as temporary:
        temporary.mkdir()
        for name in ("first", "second"):
            (temporary / name).write_bytes(content)


def read(path: Path) -> set[bytes]:
    """The content of a file, or of all of a folder's, which must be the two."""
    if path.is_file():
        return {path.read_bytes()}
    assert {file.name for file in path.iterdir()} == {"first", "second"}
    return {file.read_bytes() for file in path.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_written_and_replaced(tmp_path, kind):
    path = tmp_path / "new" / "it"
    for content in (b"old", b"new"):
        write(kind, path, content)
        assert read(path) == {content} and names(path.parent) == ["it"]


@pytest.mark.parametrize("before", ["nothing", "file", "folder"])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_block_that_fails_changes_nothing(tmp_path, before, kind, error):
    path = tmp_path / "it"
    if before != "nothing":
        write(before, path, b"old")
    with pytest.raises(type(error)) as caught, atomic_write(path) as temporary:
        write(kind, temporary, b"new")
        raise error
    assert caught.value is error
    assert names(tmp_path) == ([] if before == "nothing" else ["it"])
    assert before == "nothing" or read(path) == {b"old"}


@pytest.mark.parametrize(("before", "kind"), [("file", "folder"), ("folder", "file")])
def test_a_file_replaces_no_folder_nor_a_folder_a_file(tmp_path, before, kind):
    write(before, path := tmp_path / "it", b"old")
    with pytest.raises(OSError):
        write(kind, path, b"new")
    assert read(path) == {b"old"} and names(tmp_path) == ["it"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    write("folder", path := tmp_path / "it", b"old")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if str(os.getpid()) in source.name:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write("folder", path, b"new")
    assert read(path) == {b"old"} and names(tmp_path) == ["it"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("left", ["file", "folder"])
@pytest.mark.parametrize("process", [os.getpid(), DEAD], ids=["own", "dead"])  # in a container the numbers repeat
def test_leftovers_are_removed(tmp_path, kind, left, process):
    write(kind, path := tmp_path / "it", b"old")
    write(left, tmp_path / f".it.{process}.tmp", b"half")
    write("folder", tmp_path / ".it.old.tmp", b"older")
    write(kind, path, b"new")
    assert read(path) == {b"new"} and names(tmp_path) == ["it"]


def test_leftovers_of_a_process_that_nobody_waited_for_are_removed(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    left = tmp_path / f".it.{process.pid}.tmp"
    left.write_bytes(b"half")
    write_bytes(tmp_path / "it", b"new")
    assert left.exists()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table
    write_bytes(tmp_path / "it", b"newer")
    assert names(tmp_path) == ["it"]
    process.wait()


def test_what_others_are_writing_is_left_alone(tmp_path):
    others = [f".it.{os.getppid()}.tmp", f".it.more.{DEAD}.tmp", f".its.{DEAD}.tmp", ".it.tmp", f"it.{DEAD}.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"half")
    write_bytes(tmp_path / "it", b"new")
    assert names(tmp_path) == sorted([*others, "it"])


@pytest.mark.parametrize("process", [os.getpid(), DEAD], ids=["own", "dead"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_anywhere_leaves_the_old_or_the_new(tmp_path, kind, process):
    """One of the two is in place after the next attempt, even one that fails; and then nothing else is."""
    program = f"{KILLED}\n{inspect.getsource(write)}\nwrite(kind, Path(path), content.encode())"
    seen, calls = [], 0
    while True:
        write(kind, path := tmp_path / str(calls) / "it", b"old")
        arguments = [sys.executable, "-c", program, kind, str(path), "new", str(process), str(calls)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 9), done.stderr
        if kind == "file":
            assert read(path) in ({b"old"}, {b"new"})  # at every moment
        with pytest.raises(InterruptedError), atomic_write(path):
            raise InterruptedError
        seen += read(path)
        assert names(path.parent) == ["it"]
        write(kind, path, b"newer")
        assert read(path) == {b"newer"} and names(path.parent) == ["it"]
        if done.returncode == 0:
            break
        calls += 1
    assert seen == sorted(seen, reverse=True) and set(seen) == {b"old", b"new"} and calls >= 3


def test_json(tmp_path):
    fields = {"名": ["摘要", 1 / 3, None], "n": 1 << 60}
    write_json(tmp_path / "it.json", fields)
    text = (tmp_path / "it.json").read_text("utf-8")
    assert json.loads(text) == fields and "摘要" in text and text.endswith("}\n")
    with pytest.raises(TypeError):
        write_json(tmp_path / "it.json", {"no": object()})
    assert (tmp_path / "it.json").read_text("utf-8") == text and names(tmp_path) == ["it.json"]


def test_lines_of_json_end_at_line_feeds_alone(tmp_path):
    """And what is no object there is left out: cut, too deep, a number too long."""
    path, rows = tmp_path / "a.jsonl", [{"why": f"a{x}b"} for x in "\u2028\u2029\u0085\x0b\x0c\x1c\r\n"]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join([*lines, '{"a": 1', "[" * 100_000, "1" * 5000, "[1]"]) + "\r\n", "utf-8", newline="")
    assert read_objects(path) == rows


def test_a_link_to_a_folder_gives_way(tmp_path):
    write("folder", tmp_path / "elsewhere", b"old")
    (tmp_path / "it").symlink_to(tmp_path / "elsewhere")
    write("folder", tmp_path / "it", b"new")
    assert read(tmp_path / "it") == {b"new"} and read(tmp_path / "elsewhere") == {b"old"}
    assert names(tmp_path) == ["elsewhere", "it"]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a")


def test_a_hidden_file_is_told_as_the_one_that_was_asked_for(tmp_path):
    for write in (atomic_write(tmp_path / "a"), resumable_write(tmp_path / "a", "one")):
        with pytest.raises(OSError, match="Read-only") as caught, write as file:
            raise OSError(errno.EROFS, "Read-only file system", str(file if isinstance(file, Path) else file.name))
        assert caught.value.filename == str(tmp_path / "a")


def test_what_grew_before_a_failure_is_kept_for_the_same_command_alone(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(RuntimeError), resumable_write(path, "one") as file:
        file.write(b"half")
        raise RuntimeError
    assert not path.exists()
    with resumable_write(path, "other") as file:
        assert file.read() == b""
        with pytest.raises(DataError, match="the same command is at work"), resumable_write(path, "other"):
            pass
        file.write(b"of another")
    assert path.read_bytes() == b"of another"
    with resumable_write(path, "one") as file:
        assert file.read() == b"half"
        file.write(b", whole")
    assert path.read_bytes() == b"half, whole" and list(tmp_path.iterdir()) == [path]


def test_an_output_is_neither_a_folder_nor_an_input(tmp_path):
    there = tmp_path / "a"
    there.write_text("")
    with pytest.raises(DataError, match=f"--out {tmp_path}: a folder; name a new file"):
        check_out_file(tmp_path, [])
    with pytest.raises(DataError, match=f"--out {there}: the input; name a new file"):
        check_out_file(there, [str(tmp_path / "none"), str(there)])
    check_out_file(there, ["-", "", str(tmp_path / "none")])
    check_out_file(tmp_path / "new", [str(there)])
