"""How fast documents become packed rows by Apache Beam on one machine, beside the processes of `prepare` itself.

    .venv-beam/bin/python -m benchmarks.beam --data 'corpus/*.jsonl.gz' --tokenizer FOLDER [--processes 1 2 4]

In the environment of `make beam`. All sides must write the same bytes, which is looked at. Beam's DirectRunner starts
its processes at each run; on other machines, where they are kept, that is not to be paid.
"""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from benchmarks.harness import Clock, measure
from benchmarks.side import Run
from pegasus_zh.rows.beam import Beam
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig, prepare_set
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.tokenizer_files import load_tokenizer
from training.telling import silence


def main(
    examples: ExamplesConfig,
    config: PrepareConfig,
    tokenizer: Path,
    processes: tuple[int, ...] = (1, 2, 4),
    clock: Clock = Clock(repeats=3, apart=True),  # noqa: B008
) -> None:
    """Prepares all of --data by so many processes, each way.

    tokenizer: a folder that holds vocab.txt or spiece.model. processes: of here and of Beam.
    """
    make = partial(preparing, examples, config, tokenizer)
    sides = {f"prepare, {n} process{'es' * (n > 1)}": partial(make, n, beam=False) for n in processes}
    sides |= {f"Beam, {n} process{'es' * (n > 1)}": partial(make, n, beam=True) for n in processes}
    documents = sum(1 for _ in read_documents(config.data, field=config.field))
    measure(f"prepare, {documents} documents", sides, clock, work=documents, unit="documents", check=_same)


def preparing(examples: ExamplesConfig, config: PrepareConfig, tokenizer: Path, workers: int, *, beam: bool) -> Run:
    """Returns the sha256 of every file of the set."""
    loaded = load_tokenizer(tokenizer)
    flags = ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"] if workers > 1 else []

    def run() -> dict[str, str]:
        with TemporaryDirectory() as folder, silence():
            runner = Beam(flags) if beam else None
            prepare_set(examples, replace(config, workers=workers), loaded, folder, runner)
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return run


def _same(first: dict[str, str], other: dict[str, str]) -> str:
    assert first == other, "other bytes"
    return f"the same bytes in {len(other)} files"


if __name__ == "__main__":
    tyro.cli(main, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
