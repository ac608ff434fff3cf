"""How good are sentence vectors? Models x poolings x what is done to the vectors x tasks, each cell a rank correlation.

Whitening, flow and SimCSE are fitted on a task's own texts, all its files together and no score among them, as the
published comparison has it (https://kexue.fm/archives/8348).
"""

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from pegasus_zh.text_encoder import TextEncoder
from retrieval.experiments.similarity_report import report
from retrieval.similarity import SimilarityTask, cosines, task_of
from retrieval.tuning.examples import Examples
from retrieval.tuning.simcse import TuningRecipe, tune
from retrieval.vectors.arrays import check_finite, read_npy
from retrieval.vectors.encoding import Encoding, all_vectors, encoder, encoder_for
from retrieval.vectors.flow import FlowConfig, fit_flow, flowed
from retrieval.vectors.pooling import OF_POOLER, POOLINGS, Pooling
from retrieval.vectors.source import load_alone
from retrieval.vectors.whitening import moments, whiten
from rope.layers.computation import Computation
from training.experiment.cells import REMAKE, experiment, run_cells
from training.experiment.report import shown_settings
from training.experiment.statistics import RESAMPLES, estimate_correlations
from training.files.atomic import atomic_write
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.ranges import check_lists, check_ranges
from training.telling import silence, tell

SEPARATOR = ","  # in the names of files, and so in none of models and tasks
METHOD = re.compile(r"none|flow|simcse|whitening|(whitening|projection)-[1-9]\d*")


@dataclass(frozen=True, kw_only=True)
class SimilarityGridConfig:
    """Score sentence vectors on tasks of scored pairs; the same command goes on with what is missing."""

    models: tuple[str, ...]
    """NAME=FOLDER or FOLDER: work folders of scripts.pretrain_encoder or scripts.simcse, or Hugging Face folders."""
    tasks: tuple[str, ...]
    """NAME=FILE[,FILE...] or FILE: text TAB text TAB score (.tsv, .csv, .jsonl, .json, also .gz and .zst); several
    files are splits of one task."""
    poolings: tuple[Pooling, ...] = ("cls", "pooler", "mean", "first-last")
    """P1 to P4, last-two and pooler-tanh; those of the pooler are left out for a model that has none."""
    methods: tuple[str, ...] = ("none", "whitening", "flow")
    """none, whitening, whitening-K (K dimensions), projection-K (neither centred nor scaled), flow, simcse."""
    folder: str = "runs/similarity"
    """Where everything goes; report.html is the result, and similarity.md, .csv and .png."""
    learning_rate: float = 1e-5
    """Of simcse; small models want more."""
    sentences: int = 10_000
    """Of simcse, at most; 0: all of a task."""
    batch_size: int = 64
    """Of simcse."""
    encoding: tyro.conf.OmitArgPrefixes[Encoding] = dataclasses.field(default_factory=lambda: Encoding(max_length=128))
    """Lengths and batches."""
    flow: FlowConfig = dataclasses.field(default_factory=FlowConfig)
    """Of flow."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_lists(self, models=None, tasks=None, poolings=POOLINGS, methods=None)
        check_ranges(self, learning_rate=0, sentences=0, batch_size=2)
        if wrong := [method for method in self.methods if not METHOD.fullmatch(method)]:
            raise ValueError(
                f"methods has {wrong[0]!r}: it must be none, whitening, whitening-256, projection-256, flow or simcse"
            )


@dataclass(frozen=True)
class Cell:
    model: str
    pooling: Pooling
    method: str
    task: SimilarityTask

    @property
    def name(self) -> str:
        return SEPARATOR.join((self.model, self.pooling, self.method, self.task.name))


def similarity_grid(config: SimilarityGridConfig) -> None:
    """Runs, or goes on with, the grid in `config.folder`. Raises DataError and ValueError."""
    folder = disk_path(config.folder, "--folder")
    tasks = [task_of(given) for given in config.tasks]
    sources = dict(_named(given) for given in config.models)
    for kind, names in (("models", list(sources)), ("tasks", [task.name for task in tasks])):
        if len({*names}) < len(getattr(config, kind)):
            raise DataError(f"{kind} {', '.join(names)}: they are told apart by name; write NAME=… for some")
        if wrong := [name for name in names if not re.fullmatch(rf"[^./\\{SEPARATOR}][^/\\{SEPARATOR}]*", name)]:
            raise DataError(f"{kind}: {wrong[0]!r} is no name of a file, or has a comma; write NAME=… for it")
    loaded = {name: load_alone(path) for name, path in sources.items()}
    with experiment(folder, _settings(config, loaded, tasks)):
        cells = {cell.name: cell for cell in _cells(config, loaded, tasks)}
        if not cells:
            raise DataError("no cell is left: the model has no pooler; give other --poolings")
        vectors = _Vectors(config, loaded, folder / "vectors")
        made = run_cells(folder, cells, lambda cell: _run(config, loaded, vectors, cell, folder), fits=_fits)
        tell(report(folder, made, shown_settings(config)))
        made.complete()


def _named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    return (name, path) if equals else (Path(given).absolute().name, given)


def _settings(
    config: SimilarityGridConfig, loaded: dict[str, TextEncoder], tasks: Sequence[SimilarityTask]
) -> dict[str, Any]:
    """What a folder's cells are made with; further models, tasks and methods may come."""
    digests = {f"model {name}": source.fingerprint for name, source in loaded.items()}
    digests |= {f"task {task.name}": _digest(task) for task in tasks}
    of_methods = {
        "flow": dataclasses.asdict(config.flow),
        "simcse": [config.learning_rate, config.sentences, config.batch_size],
    }
    used = {method: of_methods[method] for method in config.methods if method in of_methods}
    return digests | used | {"max_length": config.encoding.length, "dtype": config.encoding.dtype}


def _digest(task: SimilarityTask) -> str:
    digest = hashlib.sha256("\n".join(task.texts).encode())
    for split in task.splits:
        for array in (split.first, split.second, split.scores):
            digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def _cells(
    config: SimilarityGridConfig, loaded: dict[str, TextEncoder], tasks: Sequence[SimilarityTask]
) -> Iterator[Cell]:
    widths = {source.config.width for source in loaded.values()}
    if wrong := [m for m in config.methods if m.partition("-")[2] and int(m.partition("-")[2]) > min(widths)]:
        raise DataError(f"method {wrong[0]}: vectors of {min(widths)} dimensions have no more")
    for (model, source), task in product(loaded.items(), tasks):
        for pooling, method in product(config.poolings, config.methods):
            if pooling in OF_POOLER and source.config.pooler == "none":
                if task is tasks[0] and method == config.methods[0]:
                    tell(f"{model}: it has no pooler, so {pooling} is left out")
                continue
            yield Cell(model, pooling, method, task)


class _Vectors:
    """The vectors of a model and a task by all its poolings, made once and kept in a file."""

    def __init__(self, config: SimilarityGridConfig, loaded: dict[str, TextEncoder], folder: Path):
        self._config, self._loaded, self._folder = config, loaded, folder

    def of(self, cell: Cell) -> np.ndarray:
        """float32 [texts, D]."""
        source = self._loaded[cell.model]
        poolings = [p for p in POOLINGS if p not in OF_POOLER or source.config.pooler != "none"]
        path = self._folder / f"{cell.model}{SEPARATOR}{cell.task.name}.npy"
        if not path.exists():
            self._make(path, source, poolings, cell.task)
        shape = (len(poolings), len(cell.task.texts), source.config.width)
        return read_npy(path, shape, REMAKE)[poolings.index(cell.pooling)]

    def _make(self, path: Path, source: TextEncoder, poolings: Sequence[Pooling], task: SimilarityTask) -> None:
        shape = (len(poolings), len(task.texts), source.config.width)
        # Written, not mapped into memory: there a full disk would kill the process.
        with atomic_write(path) as temporary, open(temporary, "wb") as file, jax.set_mesh(make_mesh(self._config.mesh)):
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            begin = file.tell()
            done, bar = 0, progress_bar(0, len(task.texts), unit="text")
            bar.set_description(path.stem)
            for part in encoder(source, poolings, self._config.encoding)(task.texts):
                check_finite(part, done, f"{path.stem}, texts in their order")
                for number in range(len(poolings)):
                    file.seek(begin + 4 * shape[2] * (number * shape[1] + done))
                    file.write(np.ascontiguousarray(part[:, number], "<f4").data)
                done += len(part)
                bar.update(len(part))
            bar.close()


def _fits(row: dict[str, Any]) -> bool:
    """Is it a cell of this grid? One of version 0.1, of 500 resamples, does not say how many they were."""
    fields = {"model", "pooling", "method", "task", "splits", "average", "weighted", "dimensions"}
    return row.keys() >= fields and row.get("resamples") == RESAMPLES


def _run(
    config: SimilarityGridConfig, loaded: dict[str, TextEncoder], vectors: _Vectors, cell: Cell, folder: Path
) -> dict[str, Any]:
    """A cell's figures."""
    if cell.method == "simcse":
        found = _simcse(config, loaded[cell.model], cell, folder / "simcse" / cell.name)
    else:
        found = _mapped(config, cell.method, vectors.of(cell))
    *of_splits, of_all = estimate_correlations([(split.scores, cosines(found, split)) for split in cell.task.splits])
    if any(np.isnan(x.mean) for x in of_splits):
        raise DataError("all cosines are the same, or are not numbers; look at the model")
    splits = {
        split.name: {"pairs": len(split.scores), **x._asdict()}
        for split, x in zip(cell.task.splits, of_splits, strict=True)
    }
    about = {"model": cell.model, "pooling": cell.pooling, "method": cell.method, "task": cell.task.name}
    average = float(np.mean([x.mean for x in of_splits]))
    figures = {"splits": splits, "average": average, "weighted": of_all._asdict()}
    return about | figures | {"dimensions": found.shape[1], "resamples": RESAMPLES}


def _mapped(config: SimilarityGridConfig, method: str, vectors: np.ndarray) -> np.ndarray:
    kind, _, dimensions = method.partition("-")
    if kind == "none":
        return np.asarray(vectors)
    if kind == "flow":
        with silence():
            flow = fit_flow(np.asarray(vectors), config.flow)
        return flowed(flow)(vectors)
    of_all = {"beta": 0.0, "gamma": 0.0} if kind == "projection" else {}
    with silence():
        whitening = whiten(moments([vectors]), int(dimensions) if dimensions else None, **of_all)
    return whitening(vectors)


def _simcse(config: SimilarityGridConfig, source: TextEncoder, cell: Cell, folder: Path) -> np.ndarray:
    """Tunes on the task's texts and encodes them anew."""
    recipe = TuningRecipe(
        pooling=cell.pooling,
        examples=config.sentences,
        max_length=config.encoding.length,
        batch_size=min(config.batch_size, len(cell.task.texts)),
        eval_every=100_000,
        computation=Computation(dtype=config.encoding.dtype),
    )
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=config.learning_rate))
    texts, mesh = cell.task.texts, make_mesh(config.mesh)
    examples = Examples(cell.task.name, [(text,) for text in texts])
    with silence():
        state = tune(recipe, source, examples, None, mesh, folder).complete()
    with jax.set_mesh(mesh):
        encode = encoder_for(source.config, source.tokenizer, [cell.pooling], config.encoding)
        found = all_vectors(partial(encode, state.model), texts)
    shutil.rmtree(folder)  # its checkpoints are three times the model
    return found
