"""Who says whether a drawn question means the same: an encoder tuned on pairs of texts that no writer was trained on,
by a threshold of the cosine."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.tuning.examples import Examples
from retrieval.tuning.simcse import TuningRecipe, tune
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encode, Encoding, all_vectors, encoder
from retrieval.vectors.pooling import Pooling
from training.optimizer import OptimizerConfig
from training.telling import silence

Pair = tuple[str, str, float]
POOLING: Pooling = "mean"
SMALLEST = 50  # pairs of which a judge is made, at least


class Judge(NamedTuple):
    """Says by a cosine whether two texts mean the same."""

    encode: Encode
    threshold: float
    about: dict[str, float]  # how good it is on pairs of each label that it was not tuned on

    def alike(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """bool [n]; under the mesh on which it was made."""
        return _cosines(self.encode, first, second) >= self.threshold


def make_judge(
    pairs: Sequence[Pair],
    source: TextEncoder,
    mesh: jax.sharding.Mesh,
    run: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Judge:
    """Tuned by CoSENT on eight tenths of the labelled pairs. Its threshold takes as many pairs of one tenth for alike
    as are labelled so, that shares which it says are not biased; how good it is is told of the last tenth."""
    order = np.random.default_rng(0).permutation(len(pairs))
    parts = [[pairs[i] for i in part] for part in np.split(order, [8 * len(pairs) // 10, 9 * len(pairs) // 10])]
    examples = Examples("the judge's", [(a, b) for a, b, _ in parts[0]], _labels(parts[0]))
    recipe = TuningRecipe(
        loss="cosent",
        pooling=POOLING,
        examples=0,
        batch_size=batch_size,
        epochs=steps * batch_size / len(parts[0]),
        dropout=0.1,
        eval_every=steps,
        optimizer=OptimizerConfig(learning_rate=learning_rate, weight_decay=0.01, warmup=10),
    )
    with silence():
        tune(recipe, source, examples, None, mesh, run).complete()
    with jax.set_mesh(mesh):
        encode = encoder(load_text_encoder(run), [POOLING], Encoding())
        chosen, told = (_cosines(encode, *zip(*((a, b) for a, b, _ in part), strict=True)) for part in parts[1:])
    threshold = float(np.quantile(chosen, 1 - _labels(parts[1]).mean()))
    said, labels = told >= threshold, _labels(parts[2]) > 0
    about = {"of alike": said[labels].mean(), "of others": (~said[~labels]).mean(), "of all": (said == labels).mean()}
    return Judge(encode, threshold, {name: float(value) for name, value in about.items()})


def _labels(pairs: Sequence[Pair]) -> np.ndarray:
    return np.array([label for *_, label in pairs], np.float32)


def _cosines(encode: Encode, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    texts = list(dict.fromkeys([*first, *second]))
    vectors = unit(all_vectors(encode, texts))
    places = {text: n for n, text in enumerate(texts)}
    return np.sum(vectors[[places[x] for x in first]] * vectors[[places[x] for x in second]], -1)
