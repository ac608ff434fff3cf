"""An encoder and how its vectors are made, where its folder says so: a run of scripts.simcse, a config.json with a
pooler, or the modules of sentence-transformers."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np

from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.vectors.encoding import LENGTH, Encode, Encoding
from retrieval.vectors.modules import MODULES, TRANSFORMER, read_modules
from retrieval.vectors.pooling import Pooling, pooling_named
from retrieval.vectors.steps import Dense, Step, after
from rope.encoder.roformer import RoFormer, pooler_of
from training.files.buckets import on_disk, path_of
from training.files.errors import DataError
from training.telling import tell

DOCUMENT = ("document", "passage", "corpus")  # names of the prompt of what is searched, as sentence-transformers asks


@dataclass(frozen=True)
class SentenceEncoder:
    """A text encoder, and what its folder says of vectors."""

    text: TextEncoder
    where: str  # for messages
    pooling: Pooling | None = None
    """What it was trained with, if that is known."""
    steps: tuple[Step, ...] = ()
    """What is done to vectors of that pooling, in turn."""
    length: int = LENGTH
    """Ids of a text, where nothing else is asked for."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What is put before texts of a kind, by the kind's name."""
    default_prompt: str = ""
    """The one that is put before texts where none is named."""

    @property
    def fingerprint(self) -> str:
        """Of all that a text's vector depends on."""
        if not (self.steps or any(self.prompts.values())):
            return self.text.fingerprint
        steps = [step.fingerprint for step in self.steps]
        about = repr((self.text.fingerprint, steps, sorted(self.prompts.items())))
        return hashlib.sha256(about.encode()).hexdigest()[:12]

    def choose(self, asked: Pooling | Literal["auto"]) -> Pooling:
        """What was asked for; of auto what the folder says, else mean. Tells what may not be meant."""
        if asked == "auto" and self.pooling is None and self.text.config.pooler != "none":
            tell(
                f"{self.where}: the mean of the tokens, as is usual for a BERT; of a SimBERT or RoFormer-Sim the "
                "pooler makes the vectors: give --pooling pooler if it is one"
            )
        if asked not in ("auto", self.pooling) and self.steps:
            tell(f"{self.where}: pooling {asked}, so what {MODULES} has after pooling {self.pooling} is left out")
        return (self.pooling or "mean") if asked == "auto" else pooling_named(asked)

    def steps_of(self, pooling: Pooling) -> tuple[Step, ...]:
        """What is done to vectors of this pooling: the folder's steps, if it is the folder's pooling, else none."""
        return self.steps if pooling == self.pooling else ()

    def width(self, pooling: Pooling) -> int:
        """Dimensions of a vector."""
        return reduce(lambda width, step: step.width(width), self.steps_of(pooling), self.text.config.width)

    def encoding(self, asked: Encoding) -> Encoding:
        """With the folder's length, where none is asked for."""
        return replace(asked, max_length=asked.max_length or self.length)

    def prompt(self, name: str) -> str:
        """The text of a prompt, by default what the folder has for all texts. Raises DataError for an unknown name."""
        if name and name not in self.prompts:
            known = ", ".join(self.prompts) or f"none (config_sentence_transformers.json beside {MODULES} has them)"
            raise DataError(f"{self.where}: no prompt {name!r}; there is {known}")
        return self.prompts[name] if name else self.prompts.get(self.default_prompt, "")

    @property
    def prompt_of_questions(self) -> str:
        return self.prompts.get("query", "")

    @property
    def prompt_of_documents(self) -> str:
        return next((self.prompts[name] for name in DOCUMENT if name in self.prompts), "")

    def finish(self, encode: Encode, pooling: Pooling, prompt: str = "") -> Encode:
        """The same of texts with the prompt before them, its vectors [n, 1, D] with the folder's steps done."""
        steps = self.steps_of(pooling)

        def run(texts: Iterable[str]) -> Iterator[np.ndarray]:
            for part in encode(prompt + text for text in texts):
                yield after(steps, part[:, 0])[:, None]

        return run


def load_sentence_encoder(path: Path | str, *, step: int | None = None) -> SentenceEncoder:
    """As pegasus_zh.text_encoder.load_text_encoder, with what the folder says of vectors.

    Raises DataError, for what of sentence-transformers is not computed here too.
    """
    path = path_of(path, "the model")
    if (path / MODULES).is_file():
        path = on_disk(path)
    else:
        text = load_text_encoder(path, step=step)
        return SentenceEncoder(text, str(path), pooling_named(text.pooling) if text.pooling else None)
    found = read_modules(path)
    text = load_text_encoder(found.transformer, step=step)
    pooling, steps = found.read_steps(text.config)
    if text.pooling and text.config.pooler != "none" and pooling == "cls" and steps and _is_pooler(steps[0], text):
        pooling, steps = pooling_named(text.pooling), steps[1:]  # as export_encoder writes it, for others as a Dense
    if found.lowers and text.tokenizer.settings.cased:
        raise DataError(
            f"{found.transformer}: do_lower_case is true in {TRANSFORMER} and false in tokenizer_config.json; write "
            "the same in both"
        )
    length, config = found.length or text.config.max_positions, text.config
    length = min(length, config.max_positions) if config.positions == "learned" else length
    said = ", ".join([pooling, *(step.told for step in steps)])
    tell(f"{path}: pooling {said}, {length} ids, by {MODULES}")
    return SentenceEncoder(text, str(path), pooling, steps, length, found.prompts, found.default_prompt)


def dense_of(model: RoFormer, pooling: str) -> Dense:
    """A pooler as it follows the pooling of [CLS]."""
    kernel, bias = map(np.asarray, (pooler_of(model).kernel, pooler_of(model).bias))
    return Dense(kernel, bias, "Tanh" if pooling == "pooler-tanh" else "Identity")


def _is_pooler(step: Step, text: TextEncoder) -> bool:
    """Is it the same once more as what the model has, and its folder says that vectors are of?"""
    return isinstance(step, Dense) and step.fingerprint == dense_of(text.model, str(text.pooling)).fingerprint


def load_alone(path: Path | str) -> TextEncoder:
    """The encoder without what its folder says of vectors, to be tuned or pooled otherwise; what is left out is told.
    Raises DataError."""
    found = load_sentence_encoder(path)
    left = ["Dense"] * any(isinstance(step, Dense) for step in found.steps)
    left += ["prompts"] * any(found.prompts.values())
    if left:
        tell(f"{path}: its {' and '.join(left)} are left out")
    return found.text
