"""The cosines that were published of released models, wherever their weights are at hand: PUBLISHED=FOLDER names a
folder with a folder of each model, under one of the names in published.json, in either form.

The published digits are of float32, computed by TensorFlow; another order of summation moves them by some 1e-5, and a
mistake (the mean for [CLS], a tanh after the pooler, one token cut otherwise) by 1e-2 and more. So 1e-4 is asked for.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from retrieval import Embedder
from retrieval.vectors.arrays import unit

MODELS = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("about", MODELS, ids=[about["model"] for about in MODELS])
def test_the_published_cosines(about: dict) -> None:
    if not (where := os.environ.get("PUBLISHED")):
        pytest.skip(f"PUBLISHED=FOLDER names no weights: {about['model']} as {' or '.join(about['folders'])}")
    folders = [folder for name in about["folders"] if (folder := Path(where) / name).is_dir()]
    if not folders:
        pytest.skip(f"{where}: no {' or '.join(about['folders'])}")
    for folder in folders:
        texts = [text for *pair, _ in about["pairs"] for text in pair]
        vectors = unit(Embedder(folder).encode(texts, "pooler"))
        found = np.sum(vectors[::2] * vectors[1::2], 1)
        np.testing.assert_allclose(found, [cosine for *_, cosine in about["pairs"]], atol=1e-4, err_msg=str(folder))
