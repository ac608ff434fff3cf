"""What mT5 writes for the texts of a file, of standard input or of a prompt (scripts.generate)."""

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import jax
import tyro

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.load import Loaded, Semantics, load
from pegasus_zh.t5.mt5 import init
from pegasus_zh.text.losses import counting
from pegasus_zh.text.pairs import Pair, arriving_lines, read_pairs
from pegasus_zh.writing import Writing, marks_of, write_texts
from rope.decoding.search import Marks
from training.files.atomic import check_out_file, resumable_write
from training.files.buckets import path_of
from training.files.errors import DataError
from training.flags import changed
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.partition import Dtype, abstract, place
from training.telling import tell


class Write(Protocol):
    """Writes for each of the texts it is given, as many answers as the search is asked for;
    draws depend on a text's number, `first` being that of the first."""

    def __call__(self, texts: Iterable[str], first: int = 0) -> Iterator[list[str]]: ...


def placed(loaded: Loaded, dtype: Dtype) -> Loaded:
    """The same model on the devices of the mesh that is set, to be computed in this type.
    Raises ValueError for one that there is not."""
    config = changed(loaded.config, {"dtype": dtype})
    return replace(loaded, model=place(loaded.model, abstract(partial(init, config, jax.random.key(0)))), config=config)


def writer(loaded: Loaded, writing: Writing, marks: Marks | None = None) -> Write:
    """What writes with these weights as they are `placed`, under the mesh that is set. marks: by default those of the
    model's tokenizer. Raises DataError as `marks_of`."""
    marks = marks or marks_of(loaded.tokenizer, writing, loaded.suppressed)
    return partial(write_texts, loaded.model, MT5Decoder(loaded.config), loaded.tokenizer, writing, marks=marks)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Write a text for each input: of a file, of standard input, or one after the other at a prompt."""

    model: str
    """A work folder of scripts.pretrain or scripts.finetune, a folder of transformers, or a bert4keras checkpoint."""
    input: str = ""
    """.jsonl, .json or .csv (see --field), .tsv (the last column) or .txt, one input a line, also .gz, .zst; - is
    standard input as .txt, answered as its lines come; none gives a prompt."""
    out: str = ""
    """A JSONL file of {source, reference, written}, and all answers where several are asked for; by default standard
    output, an answer a line, of several each behind the input's number and a tab."""
    field: str = "source"
    """The field or column with an input's text."""
    reference_field: str = "reference"
    """The field or column with what a person wrote, copied to the output where there is one; of a .tsv without names
    the first."""
    step: int | None = None
    """Which checkpoint of several; of a run by default the newest undamaged one."""
    semantics: Semantics = "auto"
    """What the weights were trained by, where the source does not tell."""
    dtype: Dtype = "float32"
    """Of the computation."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""
    writing: tyro.conf.OmitArgPrefixes[Writing] = dataclasses.field(default_factory=Writing)
    """Lengths, batch and search."""


def run_generation(config: GenerateConfig) -> None:
    """Reads, decodes and writes as `config` says, to standard output where no file is named.
    Raises DataError and ValueError."""
    out = path_of(config.out, "--out") if config.out else Path()
    if config.out and not config.input:
        raise DataError("--out goes with --input")
    if config.out:
        check_out_file(out, [config.input])
    stream = config.input == "-" and not config.out
    whole = config.input and not stream
    inputs = list(read_pairs(config.input, config.field, config.reference_field)) if whole else None
    loaded = load(config.model, semantics=config.semantics, step=config.step)
    marks = marks_of(loaded.tokenizer, config.writing, loaded.suppressed)
    tokenizer, lost = counting(loaded.tokenizer)
    loaded = replace(loaded, tokenizer=tokenizer)
    tell(f"{loaded.source}; each length is compiled as it comes")
    # No more rows than there are texts: a prompt has one.
    rows = min(config.writing.batch_size, 1 if inputs is None else max(len(inputs), 1))
    with jax.set_mesh(make_mesh(config.mesh)):
        loaded = placed(loaded, config.dtype)
        written = writer(loaded, replace(config.writing, batch_size=rows), marks)
        if stream:
            _answer_lines(loaded, config.writing, marks)
        elif inputs is None:
            tell("Ctrl-D ends it")
            number = itertools.count()
            _prompt(lambda text: "\n".join(next(written([text], next(number)))))
        elif config.out:
            _write_file(config, loaded.fingerprint, inputs, written)
        else:
            for place, texts in enumerate(written(x.source for x in inputs), 1):
                _print(texts, place)
    if config.input:
        lost().report(config.input)
    else:
        lost().report_any("what was asked")


def _answer_lines(loaded: Loaded, writing: Writing, marks: Marks) -> None:
    """Writes for the lines of standard input, each time for all that have come."""
    first = 0
    for lines in arriving_lines(sys.stdin.buffer):
        rows = min(writing.batch_size, 1 << (len(lines) - 1).bit_length())  # few numbers: each is compiled
        write = writer(loaded, replace(writing, batch_size=rows), marks)
        for number, texts in enumerate(write(lines, first), first + 1):
            _print(texts, number)
        first += len(lines)


def _print(texts: list[str], number: int) -> None:
    """One answer alone, several behind the number of their input, which is that of the row in a file of --out."""
    for text in texts:
        print(text if len(texts) == 1 else f"{number}\t{text}", flush=True)


def _prompt(answer: Callable[[str], str]) -> None:
    while True:
        try:
            text = input("> ")
        except EOFError:
            return
        if text.strip():
            print(answer(text), flush=True)


def _write_file(config: GenerateConfig, weights: str, inputs: list[Pair], written: Write) -> None:
    """Writes config.out whole; what a killed run had written is kept beside it under a name that tells its settings."""
    out = path_of(config.out, "--out")
    identity = hashlib.sha256(repr((replace(config, out=""), weights, inputs)).encode()).hexdigest()[:12]
    with resumable_write(out, identity) as file:
        kept = file.read()
        done = kept.count(b"\n")
        file.truncate(kept.rfind(b"\n") + 1)  # a last line may be cut
        rest = inputs[done:]
        bar = progress_bar(done, len(inputs), unit="text")
        for x, texts in zip(rest, written((x.source for x in rest), done), strict=True):
            several = texts if len(texts) > 1 else None
            row = {"source": x.source, "reference": x.reference, "written": texts[0], "answers": several}
            row = {name: value for name, value in row.items() if value is not None}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
            file.flush()
            bar.update()
        bar.close()
    tell(f"{out}: {len(inputs):,} texts written")
