"""Similar questions of a file's texts, of lines as they come, or at a prompt (scripts.similar_questions)."""

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import tyro

from pegasus_zh.text.losses import counting
from pegasus_zh.text.pairs import arriving_lines
from retrieval.similar.augment import Labelled, read_labelled, write_augmented
from retrieval.similar.drawing import Drawing
from retrieval.similar.ranking import Found
from retrieval.similar.writer import QuestionWriter
from retrieval.texts import read_texts
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from training.files.atomic import check_out_file, resumable_write
from training.files.buckets import disk_path
from training.files.errors import DataError
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.partition import Dtype
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class SimilarConfig:
    """Write similar questions for each text: of a file, of standard input, or one after the other at a prompt."""

    model: str
    """A run of scripts.roformer_sim, or a folder of RoFormer-Sim or SimBERT: an encoder that writes too."""
    input: str = ""
    """.txt (one text a line), .jsonl, .json, .csv (see --field) or .tsv (the last column), also .gz and .zst; - is
    standard input, answered line by line unless --out is given; none gives a prompt."""
    augment: str = ""
    """Instead of --input, labelled pairs (text, text, label) that are to grow: --out gets them, and then each again
    with the first text's similar questions in its place, as .tsv."""
    out: str = ""
    """A JSONL file of {text, similar: [{text, score}], drawn, copies, repeated, kept, distinct_2}; by default standard
    output. The same command goes on where it was killed."""
    field: str = "text"
    """The JSON field with a text."""
    step: int | None = None
    """Which checkpoint of several; by default the newest undamaged one."""
    dtype: Dtype = "float32"
    """Of the computation."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = dataclasses.field(default_factory=Drawing)
    """What is drawn, and what of it is kept."""


def run_similar(config: SimilarConfig) -> None:
    """Reads, draws and writes as `config` says. Raises DataError and ValueError."""
    out = _checked(config)
    pairs = list(read_labelled(config.augment)) if config.augment else []
    stream = config.input == "-" and not config.out
    texts = list(dict.fromkeys(pair.first for pair in pairs))
    if config.input and not stream:
        texts = list(read_texts(config.input, config.field))
    if not texts and (config.augment or config.input and not stream):
        raise DataError(f"{config.augment or config.input}: no text in it")
    source = load_sentence_encoder(config.model, step=config.step)
    with jax.set_mesh(make_mesh(config.mesh)):
        writer = QuestionWriter(source, dtype=config.dtype)
        if texts:
            tell(f"{config.model}: each length of texts is compiled as it comes")
        if config.augment:
            hidden = out.absolute().with_name(f".{out.name}.{_identity(config, source, pairs)}.jsonl")
            if not hidden.exists():
                write_file(config, source, writer, texts, hidden)
            write_augmented(pairs, hidden, out)
        elif config.out:
            write_file(config, source, writer, texts, out)
            tell(f"{out}: similar questions of {len(texts):,} texts")
        elif texts:
            for row in _found(config, writer, texts):
                print(_line(row), flush=True)
        else:
            _answer(config, writer, stream)


def _checked(config: SimilarConfig) -> Path:
    """Where it goes. Raises DataError for what does not go together."""
    out = disk_path(config.out, "--out") if config.out else Path()
    if config.input and config.augment:
        raise DataError("--input and --augment: give one of the two")
    if config.out and not (config.input or config.augment):
        raise DataError("--out goes with --input or --augment")
    if config.augment and out.suffix != ".tsv":
        raise DataError(f"--augment needs --out FILE.tsv, not {config.out or 'standard output'}")
    if config.out:
        check_out_file(out, [config.input or config.augment])
    return out


def _found(config: SimilarConfig, writer: QuestionWriter, texts: Sequence[str], done: int = 0) -> Iterator[Found]:
    """Of each text from number `done` on, a multiple of the batch size: the same batches wherever it begins."""
    tokenizer, lost = counting(writer.tokenizer)
    prompts = writer.prompts(texts, config.drawing, tokenizer)  # all, before the first is drawn
    lost().report(config.input or config.augment)
    size = config.drawing.writing.batch_size
    for first in range(done, len(texts), size):
        part = slice(first, first + size)
        yield from writer(texts[part], prompts[part], config.drawing, first)


def write_file(
    config: SimilarConfig, source: SentenceEncoder, writer: QuestionWriter, texts: Sequence[str], out: Path
) -> None:
    """Writes `out` whole; what a killed run had written, in whole batches, is kept beside it under a name that tells
    its settings."""
    size = config.drawing.writing.batch_size
    with resumable_write(out, _identity(config, source, texts)) as file:
        lines = file.read().splitlines(keepends=True)
        whole = sum(line.endswith(b"\n") for line in lines)
        done = whole if whole == len(texts) else whole // size * size
        file.truncate(sum(map(len, lines[:done])))
        bar = progress_bar(done, len(texts), unit="text")
        for number, found in enumerate(_found(config, writer, texts, done), done + 1):
            file.write((_line(found) + "\n").encode("utf-8", "surrogatepass"))
            if number % size == 0:
                file.flush()
            bar.update()
        bar.close()


def _identity(config: SimilarConfig, source: SentenceEncoder, inputs: Sequence[str] | Sequence[Labelled]) -> str:
    """Of all that decides what is written."""
    about = (config.drawing, config.dtype, source.fingerprint, list(inputs))
    return hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _line(found: Found) -> str:
    return json.dumps(found.row(), ensure_ascii=False)


def _answer(config: SimilarConfig, writer: QuestionWriter, stream: bool) -> None:
    """Line by line: of standard input a line of JSON each, at a prompt scores and texts. What cannot be answered is one
    line, and ends nothing."""
    drawing = replace(config.drawing, writing=replace(config.drawing.writing, batch_size=1))
    lines = itertools.chain.from_iterable(arriving_lines(sys.stdin.buffer)) if stream else _typed()
    number = itertools.count()
    for text in lines:
        first = next(number)
        if not text.strip() and not stream:
            continue
        try:
            (found,) = writer([text], writer.prompts([text], drawing), drawing, first)
        except DataError as error:
            tell(str(error))
            found = Found(text, [], 0, 0, 0)
            if not stream:
                continue
        if stream:
            print(_line(found), flush=True)
        elif found.similar:
            print(*(f"{score:.4f}  {text}" for text, score in found.similar), sep="\n", flush=True)
        else:
            tell(f"of {found.drawn} draws none is kept: {found.copies} were copies, the others beyond the bounds")


def _typed() -> Iterator[str]:
    tell("Ctrl-D ends it; the first text of each length takes longer, since it compiles")
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
