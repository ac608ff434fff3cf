"""Sentence vectors: made, bettered, scored and searched.

vectors/      texts to vectors (encoding, pooling); what a folder says of them (source, modules: sentence-transformers);
              whitening, flow; files of vectors (arrays)
tuning/       an encoder tuned for them: contrastive losses, SimCSE, CoSENT, a softmax over groups of labels; and
              RoFormer-Sim, by a language model too
similar/      similar questions of a text, drawn and ranked by one model
matching/     do two texts mean the same whose characters are numbers? What these are, and a classifier of pairs
pairs/        pairs of texts that are alike, out of groups, answers, passages, a corpus, or a model that writes
search/       an index (index), its folder (store), commands and page over it
experiments/  the similarity grid: models x poolings x whitenings x tasks; the question ablation: trainings x seeds;
              how numbers are aligned, and matched

embed is a file of texts to a file of vectors; export an encoder written for others; similarity scores vectors by pairs,
texts reads either.

api is what a program calls, by names of this package (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.api import (
        Embedder,
        SimilarQuestions,
        Whitening,
        answer_groups,
        fit_whitening,
        load_whitening,
        mine_pairs,
        passage_pairs,
        synonym_groups,
        write_pairs,
    )

__all__ = [
    "Embedder",
    "SimilarQuestions",
    "Whitening",
    "answer_groups",
    "fit_whitening",
    "load_whitening",
    "mine_pairs",
    "passage_pairs",
    "synonym_groups",
    "write_pairs",
]


def __getattr__(name: str) -> Any:
    """What others call, imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retrieval import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
