"""Checkpoints through Orbax (v1 API), and nothing else of the project touches Orbax.

A checkpoint is the whole TrainState; beside it lie the config that made it and one checksum per array, so that a
damaged file is noticed whatever it decodes to. Arrays are restored straight into the shards of the mesh in use.
"""

import logging
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from training.files.buckets import absolute, move, of_a_store, read_begins
from training.files.errors import DataError, line
from training.files.weights import check_finite
from training.partition import spec
from training.step import TrainState
from training.telling import tell

PATIENCE = 600  # seconds within which a checkpoint is written by all processes, or the run ends


@jax.jit
def _checksums(tree: Any) -> list[jax.Array]:
    """One uint32 an array: the sum of its bits as unsigned integers,
    which no order of summation or sharding changes."""

    def checksum(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize])
        total = jnp.sum(bits.astype(jnp.uint32))
        return total if spec() is None else jax.reshard(total, spec())

    return [checksum(x) for x in jax.tree.leaves(tree)]


def _host_checksums(arrays: list[np.ndarray]) -> list[np.uint32]:
    """The same of NumPy arrays."""
    return [np.sum(x.view(f"u{x.itemsize}"), dtype=np.uint32) for x in arrays]


def _storable(state: TrainState) -> TrainState:
    """The state with its typed key as plain integers."""
    return replace(state, key=jax.random.key_data(state.key))


class DamagedCheckpoint(ValueError):
    """A checkpoint of which something is missing, cannot be decoded, or is not as it was saved."""


# What TensorStore's errors begin with where it is not the data that is wrong, but the store or disk, the way there, or
# another process (https://abseil.io/docs/cpp/guides/status-codes).
_NOT_OF_DATA = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED|RESOURCE_EXHAUSTED|ABORTED|CANCELLED|INTERNAL|UNKNOWN"
)


def _of_its_place(error: BaseException | None) -> BaseException | None:
    """That among an error and its causes which says that a store or disk does not answer, if there is one."""
    while error is not None:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if (isinstance(error, OSError) and not missing) or of_a_store(error) or _NOT_OF_DATA.match(str(error)):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


class Checkpoints:
    """The checkpoints of one run, by step, in one folder. Use as a context: leaving it waits for the last write."""

    def __init__(self, folder: Path, *, keep: int | None = 2):
        """folder: made if missing. keep: how many of the newest checkpoints stay;
        None to only read, changing nothing."""
        if keep is not None:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the work folder of a finished or running training")
        self.folder = folder
        # What a killed write left behind is never a checkpoint (Orbax renames when all is written),
        # only a loss of space.
        try:
            patience = ocp.options.AsyncOptions(timeout_secs=PATIENCE)
            with _undisturbed(), ocp.Context(async_options=patience):
                self._checkpointer = ocp.training.Checkpointer(
                    absolute(folder),
                    save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                    preservation_policy=ocp.training.preservation_policies.LatestN(keep),
                    cleanup_tmp_directories=keep
                    is not None,  # a reader leaves alone what a running training is writing
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # it reads the _CHECKPOINT_METADATA of all
            raise DamagedCheckpoint(
                f"{folder}: the metadata of a checkpoint is damaged ({line(error)}); "
                "move the newest away, and try again"
            ) from None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, state: TrainState, config: dict[str, Any]) -> None:
        """Starts writing in the background; the arrays are copied before this returns.
        Raises OSError on a full disk."""
        state = _storable(state)
        step = int(state.step)
        if step in self.steps:
            return
        about = {"config": config, "checksums": [int(x) for x in _checksums(state)]}
        with self._writing():
            self._checkpointer.save_async(step, state, custom_metadata=about)

    def wait(self) -> None:
        """Returns when the last save is on disk. Raises OSError as `save`."""
        with self._writing():
            self._checkpointer.wait()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with _undisturbed():
                yield
        except Exception as error:  # Orbax and TensorStore raise many kinds for a full disk
            raise OSError(
                f"{self.folder}: a checkpoint cannot be written ({line(error)}); make room, and the same command goes "
                f"on from step {max(self.steps, default=0)}"
            ) from error

    def config(self, step: int) -> dict[str, Any]:
        """The config that the checkpoint of this step was saved with. Raises DamagedCheckpoint, and OSError where it
        cannot be read now."""
        return self._metadata(step).custom_metadata["config"]

    def restore(self, abstract: TrainState) -> TrainState | None:
        """The newest undamaged checkpoint in the shardings of `abstract`; None where nothing was saved yet.

        A damaged one is told of and the one before it tried. Raises ValueError where a checkpoint is
        sound but of another model or optimizer, or of another step than its folder's name, and where all are damaged;
        and OSError where one cannot be read now, as its store does not answer: it may be sound.
        """
        target = replace(abstract, key=jax.eval_shape(jax.random.key_data, abstract.key))
        for step in reversed(self.steps):
            state, damage = None, f"{self.folder / str(step)}: damaged for another process"
            try:
                self._check_shapes(step, target)
                state = self._load(step, target, _checksums)
            except DamagedCheckpoint as error:
                damage = str(error)
            # One process alone must not go on from another step than the rest.
            sound = _true_on_every_process(state is not None)
            if state is None or not sound:
                tell(f"{damage}; trying the one before it")
                continue
            if int(state.step) != step:
                raise ValueError(
                    f"{self.folder / str(step)}: holds step {int(state.step)}; name the folder so, or move it away"
                )
            return replace(state, key=jax.random.wrap_key_data(state.key, impl="rbg"))
        if self.steps:
            raise ValueError(
                f"{self.folder}: every checkpoint is damaged; put a sound copy of one there, or delete the folder to "
                "begin again from step 0"
            )
        return None

    def restore_model(self, step: int, abstract: Any, part: str | None = None) -> Any:
        """The model alone, as NumPy arrays of the shapes of `abstract`: needs no mesh and no memory of a device.

        part: the one field of what was trained that is the model. Raises DamagedCheckpoint, OSError where it cannot be
        read now, and ValueError where the checkpoint is of another model.
        """
        saved = self._metadata(step).metadata

        def around(state: Any, model: Any) -> dict[str, Any]:
            return {**state, "model": model if part is None else {**state["model"], part: model}}

        self._check_shapes(step, around(saved, abstract))
        skipped = jax.tree.map(lambda _: ocp.PLACEHOLDER, saved)
        arrays = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), abstract)
        found = self._load(step, TrainState(**around(skipped, arrays)), _host_checksums).model
        return found if part is None else found[part]

    def _metadata(self, step: int) -> Any:
        try:
            for _ in range(2):
                with _undisturbed():
                    about = self._checkpointer.metadata(step)
                if about.metadata is not None and {"config", "checksums"} <= (about.custom_metadata or {}).keys():
                    return about
                # Orbax only logs why. Was it the store? It says so now, or answers when asked again.
                read_begins(self.folder / str(step))
            raise ValueError("its metadata cannot be read")
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
            raise self._unreadable(step, error) from None

    def _check_shapes(self, step: int, target: Any) -> None:
        saved, wanted = _shapes(self._metadata(step).metadata), _shapes(target)
        if saved != wanted:
            name = min(k for k in saved | wanted if saved.get(k) != wanted.get(k))
            raise ValueError(
                f"{self.folder}/{step}: the checkpoint is of another model or optimizer ({name} is "
                f"{saved.get(name)} there, {wanted.get(name)} here); give the flags it was made with, or another folder"
            )

    def _load(self, step: int, target: TrainState, checksums: Callable[[Any], list]) -> TrainState:
        """The arrays of `target`, compared with their checksums; a PLACEHOLDER stays what it is."""
        saved = self._metadata(step).custom_metadata["checksums"]
        try:
            with _undisturbed():
                state = self._checkpointer.load(step, target)
            loaded = {i: x for i, x in enumerate(jax.tree.leaves(state)) if x is not ocp.PLACEHOLDER}
            if [int(x) for x in checksums(list(loaded.values()))] != [saved[i] for i in loaded]:
                raise ValueError("an array is not what was saved")
        except Exception as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise  # too large for this machine is not damaged
            raise self._unreadable(step, error) from None
        return state

    def _unreadable(self, step: int, error: Exception) -> OSError | DamagedCheckpoint:
        place = self.folder / str(step)
        if why := _of_its_place(error):
            return OSError(f"{place}: cannot be read now ({line(why)}); the same command tries again")
        return DamagedCheckpoint(f"{place}: damaged checkpoint ({line(error)})")

    def set_aside_after(self, step: int) -> None:
        """Moves the (damaged) checkpoints of later steps out of the folder, so that the run can write them again."""
        later = [s for s in self.steps if s > step]
        for number in later if jax.process_index() == 0 else []:
            aside = self.folder.with_name(f"damaged-checkpoint-{number}")
            move(self.folder / str(number), aside)
            tell(f"{self.folder / str(number)}: moved to {aside}; delete it when you have looked at it")
        if later:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("set aside")
            self._checkpointer.reload()


def checkpoints_of(run: Path) -> Path:
    """The folder of a run's checkpoints, by its work folder or by itself."""
    return run / "checkpoints" if (run / "checkpoints").is_dir() else run


def read_model(
    run: Path,
    init_of: Callable[[dict[str, Any], Path], Callable[[jax.Array], Any]],
    step: int | None = None,
) -> tuple[int, dict[str, Any], Any]:
    """(step, the checkpoint's config, the model as NumPy arrays) of a run's newest undamaged checkpoint, or of `step`.

    `run` is the work folder or its checkpoints folder. Neither the run's mesh nor its optimizer is needed. init_of:
    what makes the model of a key, by the checkpoint's config; it raises where the checkpoint is not of its kind. Where
    the config names a part of what was trained, that is the model. Raises DataError if there is no such checkpoint,
    if (where `step` is given) it is damaged, or if it holds no numbers.
    """
    folder = checkpoints_of(run)
    with Checkpoints(folder, keep=None) as checkpoints:
        if step is not None and step not in checkpoints.steps:
            raise DataError(f"{folder}: no checkpoint of step {step!r}; it has the steps {checkpoints.steps}")
        for number in reversed(checkpoints.steps) if step is None else [step]:
            try:
                about = checkpoints.config(number)
                abstract = jax.eval_shape(init_of(about, folder / str(number)), jax.random.key(0))
                model = checkpoints.restore_model(number, abstract, about.get("part"))
                for path, array in jax.tree.leaves_with_path(model):
                    check_finite(jax.tree_util.keystr(path, simple=True, separator="."), array, folder / str(number))
                return number, about, model
            except DamagedCheckpoint as error:
                if step is not None:
                    raise DataError(f"{error}; leave out --step for the newest undamaged one") from None
                tell(f"{error}; trying the one before it")
    raise DataError(f"{folder}: no undamaged checkpoint here; give the work folder of a finished or running training")


def _true_on_every_process(answer: bool) -> bool:
    """Is it so on every process?"""
    return answer if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(answer)).all())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keeps Orbax from logging, in many lines, the damage that is said in one, and a Ctrl-C, which it would take for
    damage, until it is done."""
    interrupts = list[int]()
    noisy = {logger: logger.disabled for logger in map(logging.getLogger, ("absl", "asyncio"))}
    for logger in noisy:
        logger.disabled = True
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda *_: interrupts.append(1)) if main else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, before in noisy.items():
            logger.disabled = before
        if main:
            signal.signal(signal.SIGINT, handler)
        if interrupts:
            signal.raise_signal(signal.SIGINT)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves}
