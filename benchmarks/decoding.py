"""Outputs a second of `generate` beside transformers' torch `generate`: same weights, same inputs, same outputs.

    python -m benchmarks.decoding --data titles.tsv.gz [--preset t5-pegasus-small] [--beams 1 4] [--dtype bfloat16]

Inputs are the sources of a file that scripts.generate reads, 256 of them. torch gets them in the file's order, padded
to the longest of a batch, in each of the batch sizes given; the fastest counts. Compilation is not counted. Needs the
`parity` extra. benchmarks/harness.py says how it is timed.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.mt5 import MT5, PRESETS, MT5Config, init, with_vocabulary
from pegasus_zh.text.pairs import read_pairs
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from pegasus_zh.writing import Writing, generate
from rope.decoding.search import Search
from training.flags import FLAT
from training.partition import Dtype


@dataclass(frozen=True, kw_only=True)
class Config:
    data: str
    """A file that scripts.generate reads."""
    field: str = "source"
    """The JSON field with an input's text."""
    preset: str = "t5-pegasus-small"
    inputs: int = 256
    beams: tuple[int, ...] = (1, 4)
    batch_size: int = 32
    """Ours; that of torch is the best of --torch-batches."""
    torch_batches: tuple[int, ...] = (32, 64)
    max_source: int = 256
    max_target: int = 32
    dtype: Dtype = "float32"
    """Of the computation; of bfloat16 torch's weights too."""
    clock: Annotated[Clock, FLAT] = dataclasses.field(default_factory=partial(Clock, repeats=3))


Vocabulary = list[str]
Sources = list[list[int]]


def random_model(config: Config, vocabulary: Vocabulary) -> tuple[MT5, MT5Config]:
    """The same in all processes."""
    shape = replace(with_vocabulary(PRESETS[config.preset], len(vocabulary)), dtype=config.dtype)
    return jax.jit(partial(init, shape))(jax.random.key(0)), shape


def ours(config: Config, vocabulary: Vocabulary, sources: Sources, beams: int) -> Run:
    model, shape = random_model(config, vocabulary)
    writing = Writing(
        max_source=config.max_source,
        max_target=config.max_target,
        batch_size=config.batch_size,
        search=Search(beams=beams),
    )
    return lambda: list(generate(model, MT5Decoder(shape), PegasusTokenizer(vocabulary), sources, writing))


def theirs(config: Config, vocabulary: Vocabulary, sources: Sources, beams: int, batch_size: int) -> Run:
    import torch
    from transformers import MT5ForConditionalGeneration

    jax.config.update("jax_platforms", "cpu")  # it makes the weights alone
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, shape = random_model(config, vocabulary)
    tokenizer = PegasusTokenizer(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "model", jax.device_get(model), shape, tokenizer)
        dtype = getattr(torch, config.dtype)
        reference = MT5ForConditionalGeneration.from_pretrained(Path(folder) / "model", dtype=dtype).eval().to(device)
    reference.generation_config.max_length = None

    def written(chunk: Sequence[list[int]]) -> list[str]:
        ids = np.zeros((len(chunk), max(map(len, chunk))), np.int64)
        for row, source in zip(ids, chunk, strict=True):
            row[: len(source)] = source
        with torch.inference_mode():
            out = reference.generate(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(ids != 0).long().to(device),
                num_beams=beams,
                do_sample=False,
                max_new_tokens=config.max_target,
            )
        return [tokenizer.decode(row[1:]) for row in out.tolist()]

    chunks = [sources[start : start + batch_size] for start in range(0, len(sources), batch_size)]
    return lambda: [text for chunk in chunks for text in written(chunk)]


def differing(ours: list[str], theirs: list[str]) -> str | None:
    count = sum(map(str.__ne__, ours, theirs))
    return f"{count} outputs differ" if count else None


def main() -> None:
    config = tyro.cli(Config)
    texts = [pair.source for pair in islice(read_pairs(config.data, config.field), config.inputs)]
    preset = PRESETS[config.preset]
    tokenizer = PegasusTokenizer(train_pegasus_vocabulary(texts, min(preset.vocabulary, 50_000)))
    # The preset's own vocabulary, however few words the inputs have.
    vocabulary = [*tokenizer.vocabulary, *(f"[more{i}]" for i in range(preset.vocabulary - tokenizer.vocab_size))]
    sources = [tokenizer.frame_source(tokenizer.encode(text), config.max_source) for text in texts]
    lengths = [len(source) for source in sources]
    of = f"{len(sources)} inputs of {min(lengths)} to {max(lengths)} ids, {statistics.mean(lengths):.0f} on average"

    def beside(beams: int) -> None:
        given = config, vocabulary, sources, beams
        measure(
            f"decoding, {config.preset}, {'greedy' if beams == 1 else f'{beams} beams'}, {config.dtype}, {of}",
            {"ours": partial(ours, *given)}
            | {f"torch, batches of {size}": partial(theirs, *given, size) for size in config.torch_batches},
            config.clock,
            work=len(sources),
            unit="output",
            check=differing,
        )

    in_turn(*(partial(beside, beams) for beams in config.beams))


if __name__ == "__main__":
    main()
