"""The ways of making vectors that are set side by side, and how each is trained."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.pairs.same import one_line
from retrieval.tuning.contrastive import Loss
from retrieval.tuning.examples import examples_of
from retrieval.tuning.groups import Group, read_groups
from retrieval.tuning.joint_program import Objective
from retrieval.tuning.questions import tokenize
from retrieval.tuning.roformer_sim import POOLING, JointRecipe, teach
from retrieval.tuning.simcse import TuningRecipe, tune
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import SentenceEncoder
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig
from training.telling import silence


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to make vectors."""

    joint: JointRecipe | None = None
    """Trained by both losses, as this changes the recipe."""
    loss: Loss | None = None
    """Tuned by a loss over vectors alone."""
    start: str = ""
    """The way whose run of the same seed is begun with; "": the encoder itself."""
    teacher: str = ""
    """The way whose cosines are taken over."""
    pooling: Pooling = "cls"
    whitened: bool = False
    rate: float = 1.0
    """Of the learning rate."""

    @property
    def trains(self) -> bool:
        return self.joint is not None or self.loss is not None

    @property
    def writes(self) -> bool:
        return self.joint is not None and self.joint.objective.writing > 0


_JOINT = JointRecipe()
_WITH_BOTH = Way(joint=_JOINT, pooling=POOLING)
WAYS: dict[str, Way] = {
    "encoder": Way(pooling="mean"),
    "whitening": Way(pooling="mean", whitened=True),
    "simcse": Way(loss="simcse", pooling="mean", rate=0.1),  # without labels a higher rate unlearns
    "pairs": Way(loss="pairs"),
    "cosent": Way(loss="cosent"),
    "roformer-sim": _WITH_BOTH,
    "simbert": replace(_WITH_BOTH, joint=replace(_JOINT, corrupted=0.0)),
    "without writing": replace(_WITH_BOTH, joint=replace(_JOINT, objective=Objective(writing=0))),
    "without vectors": replace(_WITH_BOTH, joint=replace(_JOINT, objective=Objective(vectors=0))),
    "distilled": replace(_WITH_BOTH, start="roformer-sim", teacher="simbert"),
    "ft": Way(loss="softmax", start="roformer-sim", pooling=POOLING),
    "ft, distilled": replace(_WITH_BOTH, start="roformer-sim", teacher="ft"),
}


@dataclass(frozen=True)
class Budget:
    """What all trainings have alike."""

    steps: int  # a quarter of them where a run is taught further
    batch_size: int
    learning_rate: float


def train(
    way: Way,
    source: TextEncoder,
    files: Sequence[str],
    labelled: bool,
    unseen: Set[str],
    other: Callable[[str], TextEncoder],
    budget: Budget,
    seed: int,
    mesh: jax.sharding.Mesh,
    run: Path,
) -> TextEncoder:
    """The encoder of a way, trained in the folder `run` on files of pairs, whose last column is a label if they are
    `labelled`, and by both losses without the texts `unseen`. source: the encoder itself. other: what another way has
    come to, of the same seed."""
    start = other(way.start) if way.start else source
    steps = max(budget.steps // 4, 1) if way.start else budget.steps
    rate = way.rate * budget.learning_rate
    optimizer = OptimizerConfig(learning_rate=rate, weight_decay=0.01, warmup=max(steps // 10, 1))
    with silence():
        if way.loss:
            examples = examples_of(files, way.loss, labelled=way.loss == "pairs")
            recipe = TuningRecipe(
                loss=way.loss,
                pooling=way.pooling,
                examples=0,
                batch_size=budget.batch_size,
                epochs=steps * budget.batch_size / len(examples.sentences),
                dropout=_JOINT.dropout,
                eval_every=steps,
                seed=seed,
                optimizer=optimizer,
            )
            tune(recipe, start, examples, None, mesh, run).complete()
        elif way.joint:
            size = budget.batch_size
            loop = LoopConfig(steps=steps, batch_size=size, eval_every=steps, save_every=steps, keep=1, seed=seed)
            joint = replace(way.joint, loop=loop, optimizer=optimizer)
            groups = [without(read_groups(path, labelled), unseen) for path in files]
            questions = tokenize(groups, source.tokenizer, joint.max_length, joint.corrupted > 0)
            teacher = SentenceEncoder(other(way.teacher), way.teacher, POOLING) if way.teacher else None
            teach(joint, start, questions, mesh, run, teacher=teacher, eval_fraction=0.0).complete()
        else:
            return source
    return load_text_encoder(run)


def without(groups: Iterable[Group], unseen: Set[str]) -> Iterator[Group]:
    """The groups without these texts, which are of one line each."""
    for group in groups:
        yield group._replace(texts=tuple(text for text in group.texts if one_line(text) not in unseen))
