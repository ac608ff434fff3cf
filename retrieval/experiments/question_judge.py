"""Who says whether a drawn question means the same: an encoder tuned on other pairs, by a threshold of the cosine."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.similarity import SimilarityTask
from retrieval.tuning.examples import examples_of
from retrieval.tuning.simcse import TuningRecipe, tune
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encode, Encoding, all_vectors, encoder
from training.optimizer import OptimizerConfig
from training.telling import silence


class Judge(NamedTuple):
    """Says by a cosine whether two texts mean the same."""

    encode: Encode
    threshold: float
    about: dict[str, float]  # "accuracy, NAME" of each task, on held-out pairs with labels 0 and 1

    def alike(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """bool [n]; under the mesh on which it was made."""
        return _cosines(self.encode, first, second) >= self.threshold


def make_judge(
    files: Sequence[str],
    source: TextEncoder,
    tasks: Sequence[SimilarityTask],
    mesh: jax.sharding.Mesh,
    run: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Judge:
    """Tuned by CoSENT on files of labelled pairs, its threshold the one that is right most often there. tasks: on which
    its accuracy is told too."""
    optimizer = OptimizerConfig(learning_rate=learning_rate, weight_decay=0.01, warmup=10)
    with silence():
        examples = examples_of(files, "cosent")
        recipe = TuningRecipe(
            loss="cosent",
            examples=0,
            batch_size=batch_size,
            epochs=steps * batch_size / len(examples.sentences),
            dropout=0.1,
            eval_every=steps,
            optimizer=optimizer,
        )
        tune(recipe, source, examples, None, mesh, run).complete()
    with jax.set_mesh(mesh):
        encode = encoder(load_text_encoder(run), ["cls"], Encoding())
        chosen = np.random.default_rng(0).permutation(len(examples.sentences))[:2000]
        sides = [[examples.sentences[i][side] for i in chosen] for side in (0, 1)]
        found = _cosines(encode, *sides)
        ranks = np.asarray(examples.scores)[chosen]
        labels = ranks > np.median(np.unique(ranks))
        bounds = np.sort(found)
        threshold = float(max(bounds, key=lambda bound: np.mean((found >= bound) == labels)))
        about = {"threshold": threshold, "accuracy on its own files": float(np.mean((found >= threshold) == labels))}
        for task in tasks:
            one = task.splits[0]
            if {*one.scores.tolist()} <= {0.0, 1.0}:
                texts = [[task.texts[i] for i in side] for side in (one.first, one.second)]
                right = (_cosines(encode, *texts) >= threshold) == (one.scores > 0)
                about[f"accuracy, {task.name}"] = float(np.mean(right))
    return Judge(encode, threshold, about)


def _cosines(encode: Encode, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    texts = list(dict.fromkeys([*first, *second]))
    vectors = unit(all_vectors(encode, texts))
    places = {text: n for n, text in enumerate(texts)}
    return np.sum(vectors[[places[x] for x in first]] * vectors[[places[x] for x in second]], -1)
