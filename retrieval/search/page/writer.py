"""What writes sentences like a text, where there is one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax

from retrieval.similar.drawing import Drawing
from retrieval.similar.writer import QuestionWriter
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh


class Writer(NamedTuple):
    """A model that writes, or none."""

    write: Callable[[str, int], Sequence[tuple[str, float]]] | None = None
    """(a text, k) -> at most k others with their cosines to it, the best first. Raises DataError."""
    says: str = ""
    """Why there is none, or what to know of it: a sentence."""


def writer_for(path: str, own: SentenceEncoder) -> Writer:
    """The model at `path`; without one the index's own, if it was trained to write. Raises DataError for one that was
    asked for and cannot."""
    if path:
        return questions_of(load_sentence_encoder(path))
    if own.text.config.pooler != "linear" or not own.text.config.head:
        return Writer(says="The model of this index was not trained to write: give serve --writer FOLDER one that was.")
    try:
        return questions_of(own)
    except DataError as error:
        return Writer(says=str(error))


def questions_of(source: SentenceEncoder) -> Writer:
    """Its similar questions, a hundred drawn of each text. Raises DataError for a model that cannot write."""
    mesh, drawing = make_mesh(MeshConfig()), Drawing()
    with jax.set_mesh(mesh):
        model = QuestionWriter(source)

    def write(text: str, k: int) -> list[tuple[str, float]]:
        asked = replace(drawing, keep=min(k, drawing.writing.search.answers))
        with jax.set_mesh(mesh):
            (found,) = model([text], model.prompts([text], asked), asked)
        return [(one.text, one.score) for one in found.similar]

    return Writer(write)
