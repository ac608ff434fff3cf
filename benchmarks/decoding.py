"""Outputs a second of `generate` beside transformers' torch `generate`: same weights, same inputs, same outputs.

    python -m benchmarks.decoding --data titles.tsv.gz [--preset t5-pegasus-small] [--beams 1 4]

Inputs are the sources of a file that scripts.generate reads, 256 of them. torch gets them in the file's order, padded
to the longest of a batch, in each of the batch sizes given; the fastest counts. The two take turns; compilation is not
counted. Needs the `parity` extra.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import torch
import tyro
from transformers import MT5ForConditionalGeneration

from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.mt5 import PRESETS, init, with_vocabulary
from pegasus_zh.text.pairs import read_pairs
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from pegasus_zh.writing import Writing, generate
from rope.decoding.search import Search


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
    repeats: int = 3


def main() -> None:
    config = tyro.cli(Config)
    texts = [pair.source for pair in islice(read_pairs(config.data, config.field), config.inputs)]
    preset = PRESETS[config.preset]
    tokenizer = PegasusTokenizer(train_pegasus_vocabulary(texts, min(preset.vocabulary, 50_000)))
    # The preset's own vocabulary, however few words the inputs have.
    padded = [*tokenizer.vocabulary, *(f"[more{i}]" for i in range(preset.vocabulary - tokenizer.vocab_size))]
    tokenizer = PegasusTokenizer(padded)
    model_config = with_vocabulary(preset, tokenizer.vocab_size)
    model = jax.jit(partial(init, model_config))(jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "model", jax.device_get(model), model_config, tokenizer)
        reference = MT5ForConditionalGeneration.from_pretrained(Path(folder) / "model").eval()
    reference.generation_config.max_length = None
    sources = [tokenizer.frame_source(tokenizer.encode(text), config.max_source) for text in texts]
    lengths = [len(source) for source in sources]
    print(
        f"{config.preset}, {len(sources)} inputs of {min(lengths)} to {max(lengths)} ids, "
        f"{statistics.mean(lengths):.0f} on average"
    )

    def theirs(beams: int, batch_size: int) -> list[str]:
        written: list[str] = []
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            ids = np.zeros((len(chunk), max(map(len, chunk))), np.int64)
            for row, source in zip(ids, chunk, strict=True):
                row[: len(source)] = source
            with torch.inference_mode():
                out = reference.generate(
                    input_ids=torch.from_numpy(ids),
                    attention_mask=torch.from_numpy(ids != 0).long(),
                    num_beams=beams,
                    do_sample=False,
                    max_new_tokens=config.max_target,
                )
            written += [tokenizer.decode(row[1:]) for row in out.tolist()]
        return written

    def ours(beams: int) -> list[str]:
        writing = Writing(
            max_source=config.max_source,
            max_target=config.max_target,
            batch_size=config.batch_size,
            search=Search(beams=beams),
        )
        return list(generate(model, MT5Decoder(model_config), tokenizer, sources, writing))

    for beams in config.beams:
        sides = {"ours": partial(ours, beams)}
        sides |= {f"torch, batches of {size}": partial(theirs, beams, size) for size in config.torch_batches}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        written = ours(beams)  # compiles
        for _ in range(config.repeats):
            for name, run in sides.items():
                start = time.perf_counter()
                found = run()
                seconds[name].append(time.perf_counter() - start)
                if found != written:
                    print(f"  {name}: {sum(map(str.__ne__, found, written))} outputs differ")
        print(f"{'greedy' if beams == 1 else f'{beams} beams'}:")
        for name, times in seconds.items():
            print(f"  {name:22} {len(texts) / statistics.median(times):8.1f} outputs/s (median of {len(times)})")
        ratios = [
            min(seconds[name][i] for name in sides if name != "ours") / seconds["ours"][i]
            for i in range(config.repeats)
        ]
        print(
            f"  ours / best of torch: median {statistics.median(ratios):.2f} of {min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
