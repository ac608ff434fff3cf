"""Checkpoints in a bucket: what its store fails to answer is no damage, and what is missing there is."""

import gc

import pytest

from tests import gcs
from tests.training.test_checkpoints import restore, save
from training.checkpoints import Checkpoints
from training.files import buckets
from training.files.buckets import path_of


@pytest.fixture(scope="module")
def folder(served):
    folder = path_of(f"gs://{gcs.BUCKET}/run", "the folder")
    save(folder, (1, 2))
    return folder


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()  # Orbax's own, of the reads that failed, while their exceptions are ignored


def test_one_request_that_is_refused_makes_no_checkpoint_damaged(folder, served, said, monkeypatch):
    """Of some that are asked: the newest is restored, or nobody says that it is not there or not sound."""
    asked, refused = [], -1

    def failure(path: str) -> int:
        asked.append(path)
        return 403 if len(asked) == refused + 1 else 0

    monkeypatch.setattr(served, "failure", failure)
    restore(folder)
    for refused in range(12, len(asked), 24):
        asked.clear()
        try:
            state = restore(folder)
        except OSError:
            continue
        assert state is not None and int(state.step) == 2, asked[refused]
    assert not said


@pytest.mark.parametrize("part", ["%2Fd%2F", "manifest.ocdbt", "%2F_METADATA", "_CHECKPOINT_METADATA"])
def test_a_store_that_refuses_a_part_of_it_ends_in_one_line(folder, served, said, monkeypatch, part):
    monkeypatch.setattr(served, "failure", lambda path: 403 if part in path else 0)
    with pytest.raises(OSError, match=r"(run/2: cannot be read now \(.*\); the same command tries again$)|^Forbidden"):
        restore(folder)
    assert not said


def test_a_store_that_refuses_the_arrays_alone(folder, served, said, monkeypatch):
    load = Checkpoints._load

    def refused(checkpoints, *arguments):
        about = checkpoints._metadata(2)
        monkeypatch.setattr(checkpoints, "_metadata", lambda step: about)
        monkeypatch.setattr(served, "failure", lambda path: 403 if "%2Fd%2F" in path else 0)
        return load(checkpoints, *arguments)

    monkeypatch.setattr(Checkpoints, "_load", refused)
    with pytest.raises(OSError, match=r"run/2: cannot be read now \(.*PERMISSION_DENIED.*; the same command tries"):
        restore(folder)
    assert not said


def test_what_is_missing_or_cut_is_damage(folder, said):
    for name, damage in {
        "manifest.ocdbt": lambda file: file.unlink(),
        "_METADATA": lambda file: file.write_bytes(file.read_bytes()[:40]),
    }.items():
        copy = path_of(f"gs://{gcs.BUCKET}/without-{name}", "the copy")
        buckets._store().copy(str(folder), str(copy), recursive=True)
        damage(copy / "2" / "state" / name)
        assert int(restore(copy).step) == 1
        assert len(said) == 1 and said.pop().startswith(f"{copy}/2: damaged checkpoint (")


def test_answers_that_are_lost_lose_no_checkpoint(served, said, monkeypatch):
    folder = path_of(f"gs://{gcs.BUCKET}/lost", "the folder")
    monkeypatch.setattr(served, "losing", 8)
    save(folder, (1, 2))
    monkeypatch.setattr(served, "losing", 0)
    assert int(restore(folder).step) == 2 and served.lost and not said
