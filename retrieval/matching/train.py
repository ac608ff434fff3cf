"""Training on pairs of which few have labels: each fold's rows are held out in turn, and only their texts are learned
of."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro

from pegasus_zh.text.tokenizer_files import keep_tokenizer
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.batches import Hiding, MatchingBatches, MatchingForm, limit_of
from retrieval.matching.closure import closed
from retrieval.matching.hiding import Masks
from retrieval.matching.matcher import Reading
from retrieval.matching.pairs import Pair
from retrieval.matching.predict import probabilities, scorer_for
from retrieval.matching.program import matching_program
from retrieval.matching.score import auc
from retrieval.vectors.encoding import check_length
from rope.encoder.roformer import RoFormer, RoFormerConfig
from rope.layers.computation import Computation
from training.adversarial import Adversary
from training.files.errors import DataError
from training.files.weights import fingerprint
from training.flags import FLAT
from training.loop import LoopConfig, Trained, Training, train
from training.optimizer import OptimizerConfig
from training.program import Data, Program
from training.ranges import check_ranges
from training.telling import tell

WORD = "embeddings/word"


@dataclass(frozen=True, kw_only=True)
class MatchingRecipe:
    """What trains. The defaults are the post's, but for `shared`."""

    max_length: int = 32
    """Ids of both texts together; the longer one is cut."""
    epochs: float = 100
    """Passes over all pairs, those without label too."""
    batch_size: int = 64
    """Pairs of an update."""
    accumulate: int = 1
    """Microbatches that an update's pairs are cut into, to save memory."""
    masks: Masks | None = "tokens"
    """What is hidden and guessed beside the label: tokens each for itself, spans of 1 to 3, or nothing (None)."""
    sides: float = 0.0
    """Share of pairs of which one text is hidden whole instead, and guessed from the other."""
    rare: bool = False
    """Numbers that are not of the alphabet by their order within the pair, so that the same on both sides stays the
    same; else all are one unknown id."""
    shared: bool = True
    """A number that the other text has too is marked by its token type, so that need not be learned first."""
    adversary: float = 0.0
    """Euclidean length by which the embedding is moved against each step (fast gradient method); 0: none."""
    closure: bool = False
    """Labels follow from others: alike to what is alike to it."""
    heldout_text: bool = True
    """The texts of held-out rows are learned of where something is hidden, without their labels."""
    average: int = 1
    """Checkpoints kept, an epoch apart, to be averaged (scripts.match_anonymised predict --average)."""
    eval_epochs: float = 1
    """Passes between evaluations on the held-out rows."""
    seed: int = 0
    """Of orders, what is hidden, and dropout."""
    computation: Annotated[Computation, FLAT] = field(default_factory=Computation)
    """How the model is computed."""
    optimizer: tyro.conf.OmitArgPrefixes[OptimizerConfig] = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-5, weight_decay=0, warmup=1, clip=0, epsilon=1e-7)
    )
    """Keras's Adam at 1e-5."""

    def __post_init__(self):
        check_ranges(self, max_length=2, epochs=(0, 1 << 20), eval_epochs=(0, 1 << 20), sides=(0, 1), adversary=0)
        check_ranges(self, batch_size=1, accumulate=1, average=1, seed=(0, 1 << 32))
        if not (self.epochs and self.eval_epochs):
            raise ValueError(f"epochs {self.epochs:g}, eval_epochs {self.eval_epochs:g}: both must be above 0")

    @property
    def hiding(self) -> Hiding:
        return Hiding(self.masks, self.sides, self.rare)

    @property
    def reading(self) -> Reading:
        return Reading(self.max_length, self.rare, self.shared)

    def loop(self, pairs: int) -> LoopConfig:
        """For so many pairs."""
        epoch = pairs // self.batch_size
        steps, between = (max(round(x * epoch), 1) for x in (self.epochs, self.eval_epochs))
        return LoopConfig(
            steps=steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            log_every=min(10, steps),
            eval_every=between,
            save_every=between,
            keep=self.average + 1,  # one that is saved when the run is told to stop puts none of them out
            seed=self.seed,
        )

    def model(self, start: RoFormerConfig) -> RoFormerConfig:
        """The encoder that is begun with, as it is to be trained."""
        return replace(start, **dataclasses.asdict(self.computation))

    def program(self, model: RoFormerConfig, form: MatchingForm, steps: int) -> Program:
        """The training of `model` on batches of this form."""
        adversary = Adversary(WORD, self.adversary) if self.adversary else None
        return matching_program(model, form, self.optimizer, adversary, types=self.shared, steps=steps, seed=self.seed)


class Fold(NamedTuple):
    """Which rows are held out: those whose number leaves this rest."""

    number: int
    of: int

    def holds(self, row: int) -> bool:
        return row % self.of == self.number


def train_matcher(
    recipe: MatchingRecipe,
    source: TextEncoder,
    labelled: Sequence[Pair],
    unlabelled: Sequence[Pair],
    fold: Fold | None,
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> Trained:
    """Trains in `folder`, which is then a model for retrieval.matching.predict. fold: None holds nothing out. Raises
    DataError and ValueError."""
    held = [fold is not None and fold.holds(n) for n in range(len(labelled))]
    heldout = list(compress(labelled, held))
    trained = [pair for pair, out in zip(labelled, held, strict=True) if not out]
    learned = closed(trained, tell, source.tokenizer.unk_id) if recipe.closure else trained
    asks = bool(recipe.masks or recipe.sides)  # of pairs without label, too
    if not asks and any(pair.label != pair.label for pair in unlabelled):
        raise DataError("pairs without label teach nothing where nothing is hidden: give --masks, or no --unlabelled")
    nameless = [pair._replace(label=float("nan")) for pair in heldout] if recipe.heldout_text and asks else []
    pairs = [*learned, *nameless, *unlabelled]
    tokenizer, model = source.tokenizer, recipe.model(source.config)
    if recipe.shared and model.types < 2:
        raise DataError("the model has one token type, and numbers of both texts are marked by another: --no-shared")
    if not model.head:
        raise DataError("the model has no masked language model's head, whose words the labels are; give one that has")
    if len(pairs) < recipe.batch_size:
        raise DataError(f"{len(pairs)} pairs, fewer than one batch of {recipe.batch_size}: give a smaller --batch-size")
    check_length(model, recipe.max_length + 3)
    nothing = sum(pair.label != pair.label for pair in pairs)
    loop, limit = recipe.loop(len(pairs)), limit_of(model)
    batches = MatchingBatches(pairs, loop, recipe.max_length, recipe.hiding, tokenizer, mesh, limit)
    program = recipe.program(model, batches.form, loop.steps)
    program.check(mesh, loop.microbatch)
    tell(
        f"{len(pairs) - nothing:,} labelled pairs and {nothing:,} without label to train on, "
        f"{len(heldout):,} held out; {loop.microbatch} pairs are packed into {batches.form.rows} rows of "
        f"{batches.form.length} ids"
    )
    labels = np.array([pair.label for pair in heldout])
    score = scorer_for(source, recipe.reading)  # as predict computes it

    def review(arrays: RoFormer, step: int) -> dict[str, float]:
        return {"auc": auc(score(arrays, heldout), labels)}

    data = Data(
        train=batches,
        identity={
            "model": fingerprint(source.model),
            "settings": [recipe.max_length, *recipe.hiding, recipe.adversary, recipe.shared],
            "pairs": [len(pairs), digest(pairs)],
        },
    )
    about: dict[str, Any] = {"encoder": dataclasses.asdict(source.config), "tokenizer": tokenizer.fingerprint}
    about |= {"schedule": [loop.save_every, loop.steps]}  # of checkpoints that may be averaged
    if jax.process_index() == 0:
        keep_tokenizer(tokenizer, folder / "tokenizer")
        recipe.reading.write(folder)
    told = review if len(set(labels.tolist())) == 2 else None
    return train(Training(program=program, data=data, about=about, start=source.model, review=told), loop, mesh, folder)


def heldout_scores(
    recipe: MatchingRecipe, source: TextEncoder, model: RoFormer, labelled: Sequence[Pair], fold: Fold
) -> np.ndarray:
    """The probabilities of the fold's held-out rows, in order, by a model that lies on the mesh."""
    score = partial(scorer_for(source, recipe.reading), model)
    return probabilities(score([pair for n, pair in enumerate(labelled) if fold.holds(n)]))


def digest(pairs: Sequence[Pair]) -> str:
    """Of all that they are."""
    found = hashlib.sha256()
    for pair in pairs:
        found.update(pair.a.tobytes() + b"|" + pair.b.tobytes() + np.float64(pair.label).tobytes())
    return found.hexdigest()[:12]
