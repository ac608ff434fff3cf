"""The tasks of the few-shot experiment: their pairs in three parts, and what scores without any model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pegasus_zh.evaluation import scores
from pegasus_zh.experiments.source_use import part_from_source
from pegasus_zh.finetune import read_whole_pairs
from pegasus_zh.rows.pseudo_summary import SELECTORS
from pegasus_zh.text.documents import read_documents
from pegasus_zh.text.sentences import split_sentences
from training.files.atomic import read_json, write_json
from training.files.errors import DataError

SEEN = 40  # characters of a source by which it is looked for in the documents

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class FewShotTask:
    """A task's pairs, each source in one part alone."""

    name: str
    test: Pairs
    valid: Pairs
    training: Pairs


def read_task(path: str, test: int, valid: int) -> FewShotTask:
    """The pairs of a file in three parts, of which the first two have so many, by a hash of the source: no seed and no
    order of the file changes them. Raises DataError for a file that cannot be read, and for too few pairs."""
    pairs = dict(read_whole_pairs(path))  # by source: one that comes twice is in one part
    ranked = sorted(pairs.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    held = test + valid
    if len(ranked) <= held:
        raise DataError(
            f"{path}: {len(ranked)} pairs of different sources, and {held} of them are to test and to choose by; "
            "give more pairs, or fewer --test-examples and --valid-examples"
        )
    name = Path(path).name.split(".")[0]
    return FewShotTask(name, ranked[:test], ranked[test:held], ranked[held:])


def share_seen(documents: Sequence[str], tasks: Sequence[FewShotTask], path: Path) -> dict[str, float]:
    """The share of each task's test sources that stand in the documents, by their first characters; kept in `path`."""
    found = read_json(path, "delete it") if path.exists() else {}
    new = {task.name: [_dense(source)[:SEEN] for source, _ in task.test] for task in tasks if task.name not in found}
    if wanted := {begin for begins in new.values() for begin in begins}:
        seen = set()
        for text in map(_dense, read_documents(documents)):
            seen |= {begin for begin in wanted if begin in text}
        found |= {name: float(np.mean([begin in seen for begin in begins])) for name, begins in new.items()}
        write_json(path, found)
    return found


def _dense(text: str) -> str:
    return "".join(text.split())


def without_model(task: FewShotTask) -> dict[str, float]:
    """What scores on the test part without a model, Rouge-L as fractions of 1:

    `copied`: each source's first characters, as many as the median reference of the training has; `sentence`: the
    first sentence; `lcs` and `rouge-l`: the sentence that the selector takes first, as an extractive summariser would;
    `best`: that which scores most, which no extractor of one sentence surpasses. `part`: of the references' bigrams,
    those that stand in the source.
    """
    references, sources = [reference for _, reference in task.test], [source for source, _ in task.test]
    length = int(np.median([len(reference) for _, reference in task.training]))
    sentences = [[x for x in split_sentences(source, faithful=False) if x] or [source] for source in sources]
    written = {
        "copied": [source[:length] for source in sources],
        "sentence": [first for first, *_ in sentences],
        **{
            name: [text[next(SELECTORS[name](text, "character", 0))] for text in sentences]
            for name in ("lcs", "rouge-l")
        },
    }
    found = {name: float(scores(references, texts)["rouge-l"].mean()) for name, texts in written.items()}
    every = [
        scores([reference] * len(text), text)["rouge-l"].max()
        for reference, text in zip(references, sentences, strict=True)
    ]
    return found | {"best": float(np.mean(every)), "part": float(part_from_source(references, sources).mean())}
