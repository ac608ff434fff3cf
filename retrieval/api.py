"""What others call: texts to vectors, and vectors whitened."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from pegasus_zh.text.lists import listed
from pegasus_zh.text_encoder import load_text_encoder
from retrieval.embed import pooling_of
from retrieval.vectors.arrays import check_finite, unit
from retrieval.vectors.encoding import Encode, Encoding, encoder_for
from retrieval.vectors.pooling import Pooling, pooling_named
from retrieval.vectors.whitening import Whitening, load_whitening, moments, whiten
from rope.encoder.huggingface import Pooler
from rope.encoder.roformer import init
from training.arrays import points
from training.mesh import MeshConfig, mesh_of
from training.partition import Dtype, abstract, place

__all__ = ["Embedder", "Whitening", "fit_whitening", "load_whitening"]


class Embedder:
    """Makes vectors of texts: `Embedder("runs/encoder").encode(texts)`."""

    def __init__(
        self,
        path: Path | str,
        *,
        max_length: int = 64,
        step: int | None = None,
        pooler: Pooler = "auto",
        dtype: Dtype = "float32",
        mesh: jax.sharding.Mesh | MeshConfig | None = None,
    ):
        """path: a run of pretrain_encoder or scripts.simcse, or a folder of transformers (BERT, RoFormer, SimBERT, …).

        max_length: ids of a text, [CLS] and [SEP] included; of longer ones the end is cut. step: which checkpoint of
        several. pooler: of a folder that does not say it, tanh or linear. dtype: of the computation. mesh: by default
        all devices. Raises DataError.
        """
        self._source = load_text_encoder(path, step=step, pooler=pooler)
        self._encoding = Encoding(max_length=max_length, dtype=dtype)
        self._mesh = mesh_of(mesh)
        self._programs: dict[Pooling, Encode] = {}
        with jax.set_mesh(self._mesh):
            like = abstract(partial(init, self._source.config, jax.random.key(0)))
            self._model = place(self._source.model, like)

    @property
    def width(self) -> int:
        """Dimensions of a vector that is not whitened (D)."""
        return self._source.config.width

    def encode(
        self,
        texts: Iterable[str],
        pooling: Pooling | Literal["auto"] = "auto",
        *,
        whitening: Whitening | Path | str | None = None,
        normalise: bool = False,
    ) -> np.ndarray:
        """float32 [n, D], a vector for each text, in order.

        pooling: cls, pooler, mean, first-last or last-two (retrieval/vectors/pooling.py); auto: what scripts.simcse
        tuned the model with, else mean. whitening: what fit_whitening made of such vectors, or its file. normalise:
        vectors of length 1, whose products are cosines. Raises ValueError for a string where a list belongs and for no
        texts; DataError for a pooling that there is not, or that the model does not have, and for vectors with NaN.
        """
        found = listed(texts)
        chosen = pooling_of(self._source, pooling if pooling == "auto" else pooling_named(pooling))
        map_ = load_whitening(whitening) if isinstance(whitening, (str, Path)) else whitening
        if not (map_ is None or callable(map_)):
            raise ValueError(f"whitening is {map_!r:.40}: give what fit_whitening made, or its file")
        with jax.set_mesh(self._mesh):
            if chosen not in self._programs:
                source = self._source
                encode = encoder_for(source.config, source.tokenizer, [chosen], self._encoding)
                self._programs[chosen] = partial(encode, self._model)
            vectors = np.concatenate([part.vectors[:, 0] for part in self._programs[chosen](found)])
        vectors = vectors if map_ is None else map_(vectors)
        check_finite(vectors)
        return unit(vectors) if normalise else vectors


def fit_whitening(
    vectors: np.ndarray,
    dimensions: int | None = None,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    mesh: jax.sharding.Mesh | MeshConfig | None = None,
) -> Whitening:
    """What makes vectors [n, D] such as these of mean 0 and of covariance the identity: call it with vectors [m, D], or
    give it to Embedder.encode; `save(path)` writes it for load_whitening.

    dimensions: how many of the strongest directions are kept, by default all. beta: the share of the mean that is taken
    away; gamma: how far variances are made equal (retrieval/vectors/whitening.py). Raises ValueError for one vector
    where vectors belong and for NaN; DataError for fewer than two, for vectors that are all the same, and for more
    dimensions than there are.
    """
    rows = points(vectors, "vectors")
    with jax.set_mesh(mesh_of(mesh)):
        return whiten(moments([rows]), dimensions, beta=beta, gamma=gamma)
