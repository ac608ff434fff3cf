"""Chinese text models from raw documents: pseudo-summaries, mT5, T5-PEGASUS, and what a user runs on them.

text/         documents, pairs and sentences; vocabularies and tokenizers, other people's too
rows/         texts -> examples (pseudo-summaries, span corruption, plain text) -> packed rows -> batches
t5/           mT5 and its objective; loading (transformers, bert4keras), transplanting, export, StableHLO
experiments/  few-shot: what pretraining buys when examples are few

pretrain, finetune, generation and evaluation are what a user runs, tuning what finetune and few-shot train by,
text_encoder the same for RoFormer and BERT (and what retrieval builds on), writing is texts to texts by any decoder,
decoders loads that of either; api is what a program calls, by names of this package (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pegasus_zh.api import (
        Encoder,
        Run,
        Search,
        States,
        Writer,
        load_encoder,
        load_writer,
        pretrain_encoder,
        pretrain_t5,
    )

__all__ = [
    "Encoder",
    "Run",
    "Search",
    "States",
    "Writer",
    "load_encoder",
    "load_writer",
    "pretrain_encoder",
    "pretrain_t5",
]
__version__: str


def __getattr__(name: str) -> Any:
    """What others call, imported when it is asked for; and `__version__`, which pyproject.toml has, also of a checkout
    that is not installed."""
    if name in __all__:
        from pegasus_zh import api

        return getattr(api, name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import tomllib
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("pegasus-zh")
    except PackageNotFoundError:
        return tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
