"""One process at a time in a folder: refused or waited for, and free again as soon as a holder is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from training.files.locks import locked

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from training.files.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
WAIT = """
import sys
from pathlib import Path
from training.files.locks import locked
from training.telling import show
show()
with locked(Path(sys.argv[1]), wait=True):
    print("mine")
"""


def start(program: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_another_process_is_refused_or_waits_until_the_holder_is_killed(tmp_path):
    folder = tmp_path / "new" / "run"
    with start(HOLD, folder) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="run: another run is at work there; wait for it, or give another folder"):
            with locked(folder):
                pass
        with start(WAIT, folder) as waiting:
            assert waiting.stdout.readline() == f"waiting for another run in {folder}\n"
            holder.kill()
            assert waiting.stdout.readline() == "mine\n"
    with locked(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_the_lock_ends_with_a_block_that_fails(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_what_cannot_be_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=r"cannot be used as a folder \((File exists|Not a directory)\)"):
            with locked(folder):
                pass
