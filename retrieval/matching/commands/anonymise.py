"""What scripts.match_anonymised anonymise does."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.matching.anonymise import anonymised, private_map, write_key
from retrieval.matching.pairs import Wanted, read_rows
from training.files.atomic import check_out_file, write_bytes
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class AnonymiseConfig:
    """Write texts as numbers by a private map, to measure with; rows, columns and labels stay."""

    data: tuple[str, ...]
    """Files of pairs (text TAB text [TAB label]) or of texts; all together have one map."""
    folder: str
    """Where the anonymised files go, under their own names as .tsv, and key.tsv, the map."""
    seed: int = 0
    """Of the map."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, seed=(0, 1 << 32))


def anonymise(config: AnonymiseConfig) -> None:
    """Writes the files, each whole or not at all. Raises DataError, with file, line and remedy."""
    folder, wanted = disk_path(config.folder, "--folder"), Wanted(numbers=False, labels=False, single=True)
    names = [Path(path).name.split(".")[0] for path in config.data]
    if len({*names}) < len(names):
        raise DataError(f"{', '.join(config.data)}: two files have one name up to the first dot; rename one")
    if "key" in names:
        raise DataError("a file is named key, as the map is; rename it")
    if (folder / "key.tsv").exists():
        raise DataError(f"{folder / 'key.tsv'}: the key of what is there already; name another --folder")
    rows = {name: [*read_rows(path, wanted)] for name, path in zip(names, config.data, strict=True)}
    of = private_map((text for one in rows.values() for row in one if row for text in (row.a, row.b)), config.seed)
    for name in names:
        check_out_file(folder / f"{name}.tsv", config.data)
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in rows.items():
        lines = ("\t".join([*(anonymised(x, of) for x in (row.a, row.b) if x), *row.rest]) for row in one if row)
        write_bytes(folder / f"{name}.tsv", "".join(f"{line}\n" for line in lines).encode())
        tell(f"{folder / name}.tsv: {len(one):,} rows")
    write_key(folder / "key.tsv", of)
    tell(f"{folder / 'key.tsv'}: {len(of):,} characters and their numbers; keep it apart")
