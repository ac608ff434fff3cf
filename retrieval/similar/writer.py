"""A model that writes similar questions, and whose vectors say how similar they are."""

from collections.abc import Iterable, Sequence
from functools import partial

import jax
import numpy as np

from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.writing import Writing, answers, marks_of, unwritten
from retrieval.similar.drawing import Drawing
from retrieval.similar.prompts import prompt_of
from retrieval.similar.ranking import Found, Similar, chosen, different
from retrieval.vectors.arrays import check_finite, unit
from retrieval.vectors.encoding import Encode, Encoding, all_vectors, encoder_for
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.source import SentenceEncoder
from rope.decoding.search import Marks
from rope.encoder.prefix_decoder import PrefixDecoder
from rope.encoder.roformer import RoFormerConfig, init
from training.files.errors import DataError
from training.flags import changed
from training.partition import Dtype, abstract, place
from training.telling import tell


class QuestionWriter:
    """The model on the mesh that is set, under which it is called."""

    def __init__(self, source: SentenceEncoder, *, dtype: Dtype = "float32"):
        """Raises DataError for a model that cannot write; tells of one that may not have been trained to."""
        check_writes(source)
        config = changed(source.text.config, {"dtype": dtype})
        self.pooling = pooling_of(source)
        self._source, self._decoder, self._dtype = source, PrefixDecoder(config), dtype
        self._model = place(source.text.model, abstract(partial(init, config, jax.random.key(0))))
        self._encoders: dict[int, Encode] = {}
        self._marks_of: dict[Writing, Marks] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        return self._source.text.tokenizer

    def prompts(self, texts: Iterable[str], drawing: Drawing, tokenizer: Tokenizer | None = None) -> list[list[int]]:
        """What is read of each text. Raises DataError, with the text, as `prompt_of` does, and where prompts and what
        is written are longer than the model."""
        check_room(self._source.text.config, drawing)
        how = drawing.writing.max_source, drawing.change, drawing.mask_idxs
        return [prompt_of(text, tokenizer or self.tokenizer, *how) for text in texts]

    def __call__(
        self, texts: Sequence[str], prompts: Sequence[Sequence[int]], drawing: Drawing, first: int = 0
    ) -> list[Found]:
        """The similar questions of these texts, whose prompts are given; `first` is the number of the first one, on
        which its draws depend."""
        tokenizer = self.tokenizer
        drawn = answers(self._model, self._decoder, tokenizer, prompts, drawing.writing, first, self._marks(drawing))
        spelt = lambda text: tokenizer.decode(tokenizer.encode(text))  # noqa: E731
        words = [*drawing.change, *filter(None, map(spelt, drawing.change))]
        distinct = [
            different(draws, frozenset({text, text.strip(), spelt(text)}), words)
            for text, draws in zip(texts, drawn, strict=True)
        ]
        vectors = self._vectors([*texts, *(text for found, *_ in distinct for text in found)], drawing)
        found, begin = [], len(texts)
        for number, (text, (left, copies, repeated)) in enumerate(zip(texts, distinct, strict=True)):
            mine = vectors[begin : (begin := begin + len(left))]
            limits = drawing.keep, drawing.least, drawing.greatest, drawing.diversity
            places, near = chosen(mine, vectors[number], *limits)
            similar = [Similar(left[i], float(near[i])) for i in places]
            found.append(Found(text, similar, drawing.writing.search.answers, copies, repeated))
        return found

    def _marks(self, drawing: Drawing) -> Marks:
        """What begins and ends a text, and what it may not have: special tokens neither."""
        if drawing.writing not in self._marks_of:
            self._marks_of[drawing.writing] = marks_of(self.tokenizer, drawing.writing, unwritten(self.tokenizer))
        return self._marks_of[drawing.writing]

    def _vectors(self, texts: list[str], drawing: Drawing) -> np.ndarray:
        """float32 [n, D] of length 1, by the model's own pooling."""
        length = max(drawing.writing.max_source, drawing.writing.max_target + 1)  # nothing of either is cut
        if length not in self._encoders:
            text, encoding = self._source.text, Encoding(max_length=length, dtype=self._dtype)
            of_model = encoder_for(text.config, text.tokenizer, [self.pooling], encoding)
            encode = self._source.finish(partial(of_model, self._model), self.pooling, self._source.prompt(""))
            self._encoders[length] = encode
        vectors = all_vectors(self._encoders[length], texts)
        check_finite(vectors, 0, self._source.where)
        return unit(vectors)


def pooling_of(source: SentenceEncoder) -> Pooling:
    """What the folder says, else the pooler of RoFormer-Sim and SimBERT, which has no tanh, else the mean."""
    return source.pooling or ("mean" if source.text.config.pooler == "none" else "pooler")


def check_writes(source: SentenceEncoder) -> None:
    """Raises DataError for a model that cannot write; tells of one that may not have been trained to."""
    config = source.text.config
    if not config.head:
        raise DataError(
            f"{source.where}: no masked language model's head, so it cannot write; give a run of scripts.roformer_sim, "
            "or a folder of RoFormer-Sim or SimBERT with its cls.predictions"
        )
    try:
        PrefixDecoder(config)
    except ValueError as error:
        raise DataError(f"{source.where}: {error}") from None
    if config.pooler != "linear":
        tell(
            f"{source.where}: its pooler is not linear, as it is where an encoder was trained to write (RoFormer-Sim, "
            "SimBERT); if this one was not, what it writes is noise"
        )


def check_room(config: RoFormerConfig, drawing: Drawing) -> None:
    """Raises DataError for prompts, or texts written after them, that are longer than the model's positions."""
    writing = drawing.writing
    longest = writing.max_source + writing.max_target
    if config.positions == "learned" and longest > config.max_positions:
        raise DataError(
            f"--max-source {writing.max_source} and --max-target {writing.max_target}: the model has "
            f"{config.max_positions} learned positions; give less"
        )
