"""What others call: texts to vectors, vectors whitened, texts to similar questions, and pairs of texts."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from pegasus_zh.text.lists import listed
from retrieval.pairs.groups import answer_groups, synonym_groups
from retrieval.pairs.mined import mine_pairs
from retrieval.pairs.passages import passage_pairs
from retrieval.pairs.written import write_pairs
from retrieval.similar.drawing import Drawing
from retrieval.similar.ranking import Found
from retrieval.similar.writer import QuestionWriter
from retrieval.vectors.arrays import check_finite, unit
from retrieval.vectors.encoding import Encode, Encoding, all_vectors, encoder_for
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import load_sentence_encoder
from retrieval.vectors.whitening import Whitening, load_whitening, moments, whiten
from rope.encoder.roformer import init
from training.arrays import points
from training.flags import changed
from training.mesh import MeshConfig, mesh_of
from training.partition import Dtype, abstract, place
from training.ranges import check_number

__all__ = [
    "Embedder", "SimilarQuestions", "Whitening", "fit_whitening", "load_whitening",
    "answer_groups", "mine_pairs", "passage_pairs", "synonym_groups", "write_pairs",
]  # fmt: skip


class Embedder:
    """Makes vectors of texts: `Embedder("runs/encoder").encode(texts)`."""

    def __init__(
        self,
        path: Path | str,
        *,
        max_length: int | None = None,
        step: int | None = None,
        dtype: Dtype = "float32",
        mesh: jax.sharding.Mesh | MeshConfig | None = None,
    ):
        """path: a run of pretrain_encoder or scripts.simcse, or a folder of transformers or sentence-transformers
        (BERT, BGE, RoFormer, SimBERT, …).

        max_length: ids of a text, [CLS] and [SEP] included; of longer ones the end is cut; by default what a folder of
        sentence-transformers says, else 64. step: which checkpoint of several. dtype: of the computation. mesh: by
        default all devices. Raises DataError.
        """
        self._source = load_sentence_encoder(path, step=step)
        self._encoding = self._source.encoding(Encoding(max_length=max_length, dtype=dtype))
        self._mesh = mesh_of(mesh)
        self._programs: dict[Pooling, Encode] = {}
        self._chosen: dict[str, Pooling] = {}  # by what was asked for: what is to be told of it is told once
        with jax.set_mesh(self._mesh):
            text = self._source.text
            self._model = place(text.model, abstract(partial(init, text.config, jax.random.key(0))))

    @property
    def width(self) -> int:
        """Dimensions of a vector of pooling auto that is not whitened (D)."""
        return self._source.width(self._source.pooling or "mean")

    def encode(
        self,
        texts: Iterable[str],
        pooling: Pooling | Literal["auto"] = "auto",
        *,
        whitening: Whitening | Path | str | None = None,
        normalise: bool = False,
        prompt: str = "",
    ) -> np.ndarray:
        """float32 [n, D], a vector for each text, in order.

        pooling: cls, pooler, mean, first-last, last-two or pooler-tanh (retrieval/vectors/pooling.py); auto: what the
        model was tuned with, as its folder says it, else mean. whitening: what fit_whitening made of such vectors, or
        its file. normalise: vectors of length 1, whose products are cosines. prompt: the name of one of a
        sentence-transformers folder. Raises ValueError for a string where a list belongs and for no texts; DataError
        for a pooling or prompt that there is not, or that the model does not have, and for vectors with NaN.
        """
        found = listed(texts)
        source, before = self._source, self._source.prompt(prompt)
        if str(pooling) not in self._chosen:
            self._chosen[str(pooling)] = source.choose(pooling)
        chosen = self._chosen[str(pooling)]
        map_ = load_whitening(whitening) if isinstance(whitening, (str, Path)) else whitening
        if not (map_ is None or callable(map_)):
            raise ValueError(f"whitening is {map_!r:.40}: give what fit_whitening made, or its file")
        with jax.set_mesh(self._mesh):
            if chosen not in self._programs:
                of_model = encoder_for(source.text.config, source.text.tokenizer, [chosen], self._encoding)
                self._programs[chosen] = partial(of_model, self._model)
            encode = source.finish(self._programs[chosen], chosen, before)
            vectors = all_vectors(encode, found)
        vectors = vectors if map_ is None else map_(vectors)
        check_finite(vectors)
        return unit(vectors) if normalise else vectors


class SimilarQuestions:
    """Writes similar questions: `SimilarQuestions("runs/sim")(["给我推荐一款红色的车"])`."""

    def __init__(
        self,
        path: Path | str,
        *,
        step: int | None = None,
        dtype: Dtype = "float32",
        mesh: jax.sharding.Mesh | MeshConfig | None = None,
    ):
        """path: a run of scripts.roformer_sim, or a folder of RoFormer-Sim or SimBERT.

        step: which checkpoint of several. dtype: of the computation. mesh: by default all devices. Raises DataError,
        for a model that cannot write too.
        """
        self._mesh = mesh_of(mesh)
        with jax.set_mesh(self._mesh):
            self._writer = QuestionWriter(load_sentence_encoder(path, step=step), dtype=dtype)

    def __call__(self, texts: Iterable[str], *, first: int = 0, **settings: Any) -> list[Found]:
        """Of each text, in order, what was drawn for it and kept: `found.similar` has (text, score), the score being
        its cosine to the source.

        first: the number of the first text, on which, with `seed`, its draws depend. settings: any flag of
        scripts.similar_questions, such as keep=20, answers=100 (draws), least, greatest, diversity, change=["红色"],
        mask_idxs=[7], temperature, top_p, no_repeat_ngram_size, min_length, forbid, begin, max_source, max_target,
        batch_size, seed. The first call of each length compiles. Raises ValueError for a string where a list belongs,
        no texts, and settings that cannot be; DataError for a text that cannot be read, or has not what is to change.
        """
        found = listed(texts)
        check_number("first", first, 0)
        drawing = changed(Drawing(), settings)
        size = min(drawing.writing.batch_size, 1 << (len(found) - 1).bit_length())
        drawing = replace(drawing, writing=replace(drawing.writing, batch_size=size))
        prompts, made = self._writer.prompts(found, drawing), []
        with jax.set_mesh(self._mesh):
            for begin in range(0, len(found), size):
                part = slice(begin, begin + size)
                made += self._writer(found[part], prompts[part], drawing, first + begin)
        return made


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
