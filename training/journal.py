"""What a run tells as it goes: rows of metrics, its speed, the bar; and whether its numbers are still numbers."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from training.events import Diverged, Events
from training.mesh import Share
from training.metrics import Metrics, Speed, plot_curves, progress_bar, read_metrics, shown
from training.pace import Pace
from training.program import HostBatch, Program
from training.step import Sums
from training.telling import tell

if TYPE_CHECKING:
    from training.loop import LoopConfig


class Journal:
    """Of one run, from the step after `first` on; a context that closes what it writes."""

    def __init__(
        self,
        program: Program,
        folder: Path,
        mesh: jax.sharding.Mesh,
        share: Share,
        first: int,
        config: "LoopConfig",
        events: Events,
    ):
        self._folder, self._config = folder, config
        self._metrics = Metrics(folder, first_step=first)
        self._bar = progress_bar(first, config.steps)
        self._speed = Speed(program, config.batch_size, mesh, share.parts)
        self._pace, self._events, self._waited = Pace(), events, events.waited  # by those before it
        events.write("stepping", first)
        self._free = time.monotonic()  # since then it has been evaluating or saving, if it is
        self._skipped = 0  # updates in a row
        self._saved = first  # the newest checkpoint, 0 for none
        self._pending: tuple[int, Sums, HostBatch] | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._metrics.close()

    def fetching(self, sums: Sums) -> AbstractContextManager[None]:
        """Around the fetching of a batch while the step of these sums is being computed."""
        return self._pace.fetching(sums)

    def dispatched(self, number: int, sums: Sums, host: HostBatch) -> None:
        """Step `number` is being computed; `settle` will read its sums."""
        self._pending = (number, sums, host)

    def settle(self) -> None:
        """Reads the numbers of the step that was dispatched last, if they were not read. Raises Diverged."""
        if self._pending is None:
            return
        (number, sums, host), self._pending = self._pending, None
        self._speed.add(host)
        values = {name: float(s) / max(float(w), 1.0) for name, (s, w) in sums.items()}
        self._pace.step()
        self._events.waited = self._waited + self._pace.waited
        skipped = values.pop("skipped", 0) > 0
        wrong = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
        if (spike := self._config.spike) is not None:
            if (norm := values.get("gradient_norm")) is None:
                raise ValueError(f"spike is {spike:g}: this training tells no norm of its gradient")
            if spike < norm < np.inf:
                wrong.append(f"gradient_norm is {norm:.4g}, above the spike {spike:g}")
        if wrong:
            self._wrong(number, f"step {number}: {', '.join(wrong)}", skipped)
        elif number % self._config.log_every == 0 or number == self._config.steps:
            values |= self._speed.values() | self._pace.values()
            self._metrics.write(number, values)
            self._bar.set_postfix_str(shown(values), refresh=False)
        self._skipped = self._skipped + 1 if skipped else 0
        self._bar.update(number - self._bar.n)
        self._events.at(number)
        self._free = time.monotonic()

    def _wrong(self, number: int, why: str, skipped: bool) -> None:
        """What is no number, or a spike, is told of where its update was skipped, and else ends the run."""
        if skipped and self._skipped < self._config.setbacks:
            self._metrics.write(number, {"skipped": 1.0})
            self._events.write("skipped", number, why=why)
            with self._bar.external_write_mode():
                tell(f"{why}; this update is skipped")
            return
        where = self._folder / "checkpoints"
        saved = f"Last good checkpoint: step {self._saved} in {where}" if self._saved else "Nothing was saved yet"
        several = f", {self._skipped + 1} updates in a row" if skipped else ""
        raise Diverged(number, why + several, f"stopped. {saved}. Try a lower learning rate or float32")

    def evaluated(self, number: int, values: dict[str, float]) -> None:
        """What the model of a step makes of held-out data; nothing is told of nothing."""
        if not values:
            return
        self._metrics.write(number, {f"eval_{name}": value for name, value in values.items()})
        with self._bar.external_write_mode():  # takes the bar away meanwhile
            tell(f"step {number}: held out " + ", ".join(f"{k} {v:.4f}" for k, v in values.items()))
        self._paused("evaluated", number)

    def saved(self, number: int) -> None:
        self._saved = number
        self._metrics.send()  # of the steps up to a checkpoint nothing is told again
        self._paused("saved", number)
        self._events.send()

    def _paused(self, event: str, number: int) -> None:
        now = time.monotonic()
        self._events.write(event, number, took=round(now - self._free, 3))
        self._free = now
        self._speed.pause()
        self._pace.pause()


def plot_run(folder: Path) -> None:
    """Draws the curves of all steps so far."""
    if jax.process_index() == 0:
        plot_curves(read_metrics(folder / "metrics.jsonl"), folder / "loss.png")
