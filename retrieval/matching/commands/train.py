"""What scripts.match_anonymised train does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import jax
import numpy as np

from pegasus_zh.text.documents import OnBadRecord
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.batches import limit_of, longest
from retrieval.matching.matcher import is_matcher, read_reading
from retrieval.matching.pairs import Pair, Reader, Wanted, read_pairs, unordered
from retrieval.matching.predict import written
from retrieval.matching.score import auc_interval
from retrieval.matching.start import beginning_to_match
from retrieval.matching.train import Fold, MatchingRecipe, heldout_scores, train_matcher
from retrieval.vectors.source import load_alone
from training.files.atomic import write_bytes
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.flags import FLAT, parse_flags
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig, Trained
from training.mesh import make_mesh
from training.program import Program
from training.ranges import check_lists, check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train a classifier of pairs, on labelled and unlabelled ones; the same command goes on."""

    model: str
    """What is begun with: a folder of align; for plain text any encoder with a masked language model's head."""
    data: tuple[str, ...]
    """Labelled pairs: text TAB text TAB 0 or 1."""
    unlabelled: tuple[str, ...] = ()
    """Pairs, or texts, without label, of which the language is learned; such as those to be predicted."""
    folder: str = "runs/matching"
    """Where everything of the run goes: fold-N of each fold."""
    folds: int = 10
    """Rows are cut into so many folds, row i into fold i % folds."""
    fold: tuple[int, ...] = (0,)
    """Folds to hold out, a model each; its rows are predicted, in heldout.tsv."""
    soft: tuple[str, ...] = ()
    """Pairs whose label is a probability, such as others' predictions; they are always trained on."""
    on_bad_record: OnBadRecord = "stop"
    """skip: leave bad rows out and count them by reason."""
    recipe: Annotated[MatchingRecipe, FLAT] = field(default_factory=MatchingRecipe)
    """What trains."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_lists(self, data=None, fold=range(self.folds))
        check_ranges(self, folds=2)


def train(config: TrainConfig) -> Trained | None:
    """Runs, or goes on with, the training in `config.folder`: what the last fold has come to, if there is one. Raises
    DataError and ValueError."""
    joined(config.launch)
    with hold(config.folder, config.launch):
        source = load_alone(config.model)
        if not is_matcher(config.model):
            source = beginning_to_match(source)
        elif read_reading(config.model).shared != config.recipe.shared:
            other = "--no-shared" if config.recipe.shared else "--shared"
            raise DataError(f"{config.model}: it was trained by {other}: give that, or another --model")
        labelled, more = _pairs(config, source)
        if len({pair.label for pair in labelled}) == 1:
            raise DataError(f"{', '.join(config.data)}: all labels are {labelled[0].label:g}; both are needed")
        folder, mesh, trained = disk_path(config.folder, "--folder"), make_mesh(config.launch.mesh), None
        for number in config.fold:
            fold, run = Fold(number, config.folds), folder / f"fold-{number}"
            held = [pair for n, pair in enumerate(labelled) if fold.holds(n)]
            others = without(more, held)
            if len(others) < len(more):
                tell(f"{run}: left out {len(more) - len(others):,} soft labels of pairs that are held out")
            if same := len(labelled) - len(held) - len(without(labelled, held)):
                tell(f"{run}: {same:,} pairs trained on are the same as held-out ones")
            trained = train_matcher(config.recipe, source, labelled, others, fold, mesh, run)
            if not trained.finished:
                break
            with jax.set_mesh(mesh):
                found = heldout_scores(config.recipe, source, trained.state.model, labelled, fold)
            lines = (f"{x.row}\t{x.label:g}\t{written(p)}\n" for x, p in zip(held, found.tolist(), strict=True))
            if jax.process_index() == 0:
                write_bytes(run / "heldout.tsv", "".join(lines).encode())
            labels = np.array([pair.label for pair in held])
            if not held:
                tell(f"{run}: no row is held out; give fewer --folds")
            elif len({*labels.tolist()}) == 2:
                area = auc_interval(found, labels)
                tell(f"{run}: AUC {area.text(4)} on {len(held):,} held-out rows; heldout.tsv has their scores")
            else:
                tell(
                    f"{run}: all {len(held):,} held-out rows have the same label, so there is no AUC; where labels "
                    "come in turns, shuffle the rows or give other --folds"
                )
        return trained


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.match_anonymised train") -> TrainConfig:
    """The command line's config."""
    return parse_flags(TrainConfig, prog=prog, args=args)


def plan_of(config: TrainConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: every pair as long as may be."""
    recipe, source = config.recipe, load_alone(config.model)
    loop = recipe.loop(sum(map(len, _pairs(config, source))))
    form = longest(recipe.max_length, loop.microbatch, recipe.hiding, bool(config.soft), mesh, limit_of(source.config))
    return recipe.program(recipe.model(source.config), form, loop.steps), loop


def _pairs(config: TrainConfig, source: TextEncoder) -> tuple[list[Pair], list[Pair]]:
    """The labelled ones, and all others. Tells what is not of the vocabulary. Raises DataError."""
    reader = Reader(source.tokenizer)
    read = partial(read_pairs, reader=reader, on_bad_record=config.on_bad_record)
    labelled = read(config.data, wanted=Wanted(reader.numbers, labels=True))
    more = read(config.unlabelled, wanted=Wanted(reader.numbers, labels=False, single=True))
    more += read(config.soft, wanted=Wanted(reader.numbers, labels=True, soft=True))
    reader.tell("the pairs")
    return labelled, more


def without(pairs: Sequence[Pair], held: Sequence[Pair]) -> list[Pair]:
    """Those with a label that are none of the others, in either order, and all without."""
    others = {*map(unordered, held)}
    return [pair for pair in pairs if pair.label != pair.label or unordered(pair) not in others]
