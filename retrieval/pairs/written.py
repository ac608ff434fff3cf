"""Pairs written by a model: a text, and what is written to its instruction, held against the other instructions
(DINO: Schick and Schütze 2021, arXiv 2104.07540).

Letters: G prompts that are read together, S positions of a prompt.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import jax

from pegasus_zh.decoders import Ready, load_decoder
from pegasus_zh.text.lists import listed
from pegasus_zh.writing import WINDOW, Writing, answers, bucket, marks_of
from retrieval.pairs.same import one_line, said, tokens
from retrieval.pairs.tally import SAME, Tally, distinct
from retrieval.pairs.templates import TEXT, Label, Templates, read_templates
from rope.decoding.debiased import Debiased
from rope.decoding.search import Search
from training.mesh import MeshConfig, mesh_of
from training.partition import Dtype

DRAWS = Search(temperature=1.0, top_k=5, top_p=0.9)  # DINO's
DECAY = 100.0
Answers = dict[str, list[str]]  # of a text: by each label's name what was written


class Written(NamedTuple):
    first: str  # the text
    second: str  # what was written
    score: float  # of the label by which it was


def fitting(ready: Ready, templates: Templates, texts: Sequence[str], longest: int, tally: Tally) -> list[str]:
    """The distinct texts whose prompts all have at most so many ids: a prompt that is cut would lack its end."""
    found = [texts[place] for place in distinct(texts, tally)]
    kept = [x for x in found if max(len(_framed(ready, label.prompt(x))) for label in templates.labels) <= longest]
    tally.dropped[f"texts whose prompt has more than {longest} ids"] += len(found) - len(kept)
    return kept


def written(
    ready: Ready, templates: Templates, texts: Iterable[str], writing: Writing, decay: float = DECAY, first: int = 0
) -> Iterator[Answers]:
    """What the model writes for each of the texts, which fit, in order, as many for each label as the search is asked
    for, up to the templates' mark; under the mesh that is set.

    first: the number of the first text, on which its draws depend.
    """
    texts, marks = iter(texts), marks_of(ready.tokenizer, writing, ready.suppressed)
    while window := list(islice(texts, WINDOW * writing.batch_size)):
        framed = [{label.name: _framed(ready, label.prompt(text)) for label in templates.labels} for text in window]
        room = bucket(max(len(ids) for of_text in framed for ids in of_text.values()), writing.max_source)
        found: list[Answers] = [{} for _ in window]
        for number, label in enumerate(templates.labels):
            names = (label.name, *label.against)
            pad = ready.tokenizer.pad_id
            rows = [
                [x for name in names for x in (*of_text[name], *[pad] * (room - len(of_text[name])))]
                for of_text in framed
            ]
            several = answers(
                ready.model,
                Debiased(ready.decoder, len(names), decay),
                ready.tokenizer,
                rows,
                replace(writing, max_source=len(names) * room),
                (number << 32) + first,  # labels draw apart
                marks,
            )
            for of_text, texts_written in zip(found, several, strict=True):
                of_text[label.name] = [templates.ended(text) for text in texts_written]
        yield from found
        first += len(window)


def _framed(ready: Ready, prompt: str) -> list[int]:
    return ready.tokenizer.frame_source(ready.tokenizer.encode(prompt), 1 << 20)


def kept(texts: Sequence[str], made: Iterable[Answers], templates: Templates, tally: Tally) -> list[Written]:
    """The pairs, in order: without what is no text, repeats the text or the instruction, was written before, or was
    written under labels of several scores."""
    scores = {label.name: label.score for label in templates.labels}
    told = {label.name: _phrases(label) for label in templates.labels}
    found: dict[tuple[str, str], tuple[Written, set[float]]] = {}
    for text, of_text in zip(texts, made, strict=True):
        for name, several in of_text.items():
            for second in map(one_line, several):
                key = said(second)
                if len(tokens(second)) < 2:
                    tally.dropped["written texts of one token or none"] += 1
                elif any(phrase in key for phrase in told[name]):
                    tally.dropped["written texts that repeat the instruction"] += 1
                elif key == said(text):
                    tally.dropped[SAME] += 1
                elif (said(text), key) in found:
                    tally.dropped["pairs there already"] += 1
                    found[said(text), key][1].add(scores[name])
                else:
                    found[said(text), key] = Written(one_line(text), second, scores[name]), {scores[name]}
    pairs = [pair for pair, of_pair in found.values() if len(of_pair) == 1]
    tally.dropped["pairs written under labels of several scores"] += len(found) - len(pairs)
    return pairs


def _phrases(label: Label) -> list[str]:
    """Parts of an instruction that no text has by chance."""
    parts = re.split(r"[，。！？；：\n“”]|" + re.escape(TEXT), label.instruction)
    return [said(part) for part in parts if len(tokens(part)) > 4]


def write_pairs(
    texts: Sequence[str],
    model: Path | str,
    *,
    templates: Path | str = "",
    decay: float = DECAY,
    search: Search = DRAWS,
    max_source: int = 128,
    max_target: int = 40,
    batch_size: int = 32,
    seed: int = 0,
    dtype: Dtype = "float32",
    mesh: jax.sharding.Mesh | MeshConfig | None = None,
) -> list[Written]:
    """Pairs (text, written, score) that a model writes by instructions (the same, somewhat, not the same), each held
    against others by self-debiasing.

    model: a run of T5-PEGASUS or of RoFormer as a prefix language model, as pegasus_zh.decoders.load_decoder takes it.
    templates: a JSON file of instructions (retrieval/pairs/templates.py), by default those of the project. decay: how
    sharply what other instructions would write is left out; 0: not at all. search: how many are written for each text
    and label, and how. Raises ValueError for a string where a list belongs and no texts; DataError for a model or
    templates that cannot be used.
    """
    found, read, tally = listed(texts), read_templates(templates), Tally()
    writing = Writing(max_source=max_source, max_target=max_target, batch_size=batch_size, seed=seed, search=search)
    with jax.set_mesh(mesh_of(mesh)):
        ready = load_decoder(model, dtype=dtype)
        fit = fitting(ready, read, found, max_source, tally)
        return kept(fit, list(written(ready, read, fit, writing, decay)), read, tally)
