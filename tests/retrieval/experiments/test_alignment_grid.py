"""A grid of alignments: what is right is known, cells go on, and what cannot be compared is refused."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.experiments.alignment_grid import SAME, AlignmentGridConfig, alignment_grid
from retrieval.matching.alignment.methods import METHODS
from retrieval.matching.anonymise import private_map
from tests.retrieval.matching.small_matching import texts
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS, TOKENIZER
from training.files.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    write_model(folder / "m")
    (folder / "t.txt").write_text("".join(f"{text}\n" for text in texts(1500)), "utf-8")
    (folder / "p.tsv").write_text("".join(f"{a}\t{a}\t1\n" for a in texts(300, 5)), "utf-8")
    (folder / "o.txt").write_text("".join(f"{text[::-1]}\n" for text in texts(400, 7)), "utf-8")
    alignment_grid(config(folder))
    return folder


def config(folder: Path, **given) -> AlignmentGridConfig:
    files = {"texts": (str(folder / "t.txt"), str(folder / "p.tsv")), "plain": (f"other={folder / 'o.txt'}",)}
    return AlignmentGridConfig(
        **{"model": str(folder / "m"), "sizes": (200, 0), "folder": str(folder / "out")} | files | given
    )


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "out" / "alignment.csv").open()))


def test_every_cell_has_its_figures(folder: Path) -> None:
    found = {(row["method"], row["kind"], int(row["size"])): row for row in rows(folder)}
    sizes = sorted({size for *_, size in found})
    assert len(found) == len(METHODS) * 2 * 2 and sizes[0] == 200 < sizes[1] < sizes[2]
    every = len({*texts(1500), *texts(300, 5)})
    for (_, kind, size), row in found.items():  # set aside are texts of the same kind alone
        assert size == 200 or size == (every - int(0.4 * every) if kind == SAME else every)
        assert int(row["numbers"]) <= len(CHARACTERS)
    assert all(0 <= float(row[name]) <= 1 for row in found.values() for name in ("characters", "text"))
    assert (folder / "out" / "alignment.png").stat().st_size > 10_000
    table = (folder / "out" / "alignment.md").read_text("utf-8")
    assert "| plain text | method | 200 texts | " in table and f"| {SAME} | context | " in table


def test_what_is_right_is_counted_by_the_map_that_made_the_numbers(folder: Path) -> None:
    """Rank by hand."""
    every = list(dict.fromkeys([*texts(1500), *texts(300, 5)]))
    hidden = Counter("".join(every))
    plain = Counter("".join(text[::-1] for text in texts(400, 7)))
    numbers = private_map(every, 0)
    one = sorted(hidden, key=lambda x: (-hidden[x], numbers[x]))
    other = sorted(plain, key=lambda x: (-plain[x], TOKENIZER.encode(x)))
    right = [a for a, b in zip(one, other, strict=False) if a == b]
    row = next(
        row for row in rows(folder) if row["method"] == "rank" and row["kind"] == "other" and row["size"] != "200"
    )
    assert float(row["characters"]) == pytest.approx(len(right) / len(one))
    assert float(row["text"]) == pytest.approx(sum(hidden[x] for x in right) / hidden.total())


def test_the_same_command_reads_what_is_there(folder: Path) -> None:
    before = rows(folder)
    cell = next((folder / "out" / "cells").glob("rank*"))
    kept = json.loads(cell.read_text())
    cell.unlink()
    alignment_grid(config(folder))
    again = json.loads(cell.read_text())
    assert {**again, "seconds": 0} == {**kept, "seconds": 0}
    moved = [(a, b) for a, b in zip(before, rows(folder), strict=True) if {**a, "seconds": ""} != {**b, "seconds": ""}]
    assert not moved


def test_what_cannot_be_compared_is_refused(folder: Path) -> None:
    given = config(folder)
    with pytest.raises(DataError, match="its cells were made with same 0.4, not 0.5"):
        alignment_grid(replace(given, same=0.5))
    with pytest.raises(DataError, match="kinds are told apart by name"):
        alignment_grid(replace(given, plain=(f"{SAME}={folder / 'o.txt'}",), folder=str(folder / "b")))
    with pytest.raises(DataError, match=r"5,000 texts wanted, and there are [\d,]+; give smaller --sizes"):
        alignment_grid(replace(given, sizes=(5000,), folder=str(folder / "c")))
    for wrong in ({"methods": ("guess",)}, {"sizes": (5, 5)}, {"sizes": (-1,)}, {"plain": (), "same": 0}, {"seeds": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
            config(folder, **wrong)
