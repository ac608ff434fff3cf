"""How many pairs of numbers scripts.match_anonymised predict scores a second, beside transformers' torch BERT.

    python -m benchmarks.matching [--width 768] [--layers 12] [--pairs 500]

Needs the `parity` extra (`make bench` sets it up). Both read the same file of pairs and compute with the same random
weights; the first runs' probabilities are compared. Torch has pairs of like length in a batch, padded to its longest,
and its head sees [CLS] alone. Loading and compilation are not timed; benchmarks/harness.py says how it is.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, measure
from benchmarks.random_bert import random_bert
from benchmarks.side import Run
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.text_encoder import TextEncoder
from retrieval.matching.alphabet import NO, YES
from retrieval.matching.matcher import Matcher, Reading
from retrieval.matching.pairs import Reader
from retrieval.matching.predict import predicted, probabilities, scorer
from rope.encoder.huggingface import write_encoder
from training.flags import FLAT
from training.mesh import MeshConfig, make_mesh

MOST = 32  # ids between the marks


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 768
    layers: int = 12
    numbers: int = 2000
    """Of the alphabet."""
    pairs: int = 500
    torch_batches: tuple[int, ...] = (16, 64)
    """Pairs of a batch; each is a side."""
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def texts(config: Config) -> list[tuple[str, str]]:
    """Pairs of random numbers, as long as short questions are: 2 and more, 9 in the mean."""
    random = np.random.default_rng(0)

    def one() -> str:
        return " ".join(map(str, random.integers(config.numbers, size=2 + int(random.gamma(3, 2.5)))))

    return [(one(), one()) for _ in range(config.pairs)]


def random_encoder(config: Config) -> TextEncoder:
    """Of the alphabet's numbers."""
    alphabet = PegasusTokenizer([*SPECIALS, *map(str, range(config.numbers))], "alphabet")
    return random_bert(alphabet, config.width, config.layers, pooler="none")


def ours(config: Config, path: str) -> Run:
    source, mesh = random_encoder(config), make_mesh(MeshConfig())
    with jax.set_mesh(mesh):
        score = scorer(Matcher(source, Reading(MOST, rare=False, shared=False)))

    def run() -> np.ndarray:
        with jax.set_mesh(mesh):
            windows = predicted(path, [score], [Reader(source.tokenizer)], "stop", Counter())
            return np.array([p for window in windows for _, p in window])

    return run


def theirs(config: Config, path: str, size: int) -> Run:
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import BertForMaskedLM

    source = random_encoder(config)
    alphabet = source.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        write_encoder(Path(folder) / "bert", source.model, source.config)
        model = BertForMaskedLM.from_pretrained(Path(folder) / "bert").eval()
    known = {x: i for i, x in enumerate(alphabet.pieces()) if x}
    decoder = model.cls.predictions.decoder
    word, bias = (x[YES] - x[NO] for x in (decoder.weight, decoder.bias))

    def rows() -> Iterator[list[int]]:
        for line in Path(path).read_text("utf-8").splitlines():
            a, b = ([known[x] for x in text.split()] for text in line.split("\t"))
            while len(a) + len(b) > MOST:
                (a if len(a) >= len(b) else b).pop()
            yield [alphabet.start_id, *a, alphabet.eos_id, *b, alphabet.eos_id]

    @torch.inference_mode()
    def run() -> np.ndarray:
        given = [torch.tensor(row) for row in rows()]
        order = sorted(range(len(given)), key=lambda n: len(given[n]))
        odds = np.empty(len(given), np.float32)
        for first in range(0, len(order), size):
            members = order[first : first + size]
            ids = pad_sequence([given[n] for n in members], batch_first=True, padding_value=alphabet.pad_id)
            hidden = model.bert(ids, attention_mask=(ids != alphabet.pad_id).long()).last_hidden_state[:, 0]
            odds[members] = (model.cls.predictions.transform(hidden) @ word + bias).numpy()
        return probabilities(odds)

    return run


def apart(ours: np.ndarray, theirs: np.ndarray) -> str:
    return (
        f"probabilities from {ours.min():.3f} to {ours.max():.3f}, "
        f"of the two apart by at most {np.abs(ours - theirs).max():.1e}"
    )


def main() -> None:
    config = tyro.cli(Config)
    pairs = texts(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.tsv"
        path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), "utf-8")
        sides = {"ours": partial(ours, config, str(path))}
        sides |= {f"torch, {size} a batch": partial(theirs, config, str(path), size) for size in config.torch_batches}
        measure(
            f"{len(pairs):,} pairs of {np.mean([len(f'{a} {b}'.split()) + 3 for a, b in pairs]):.1f} ids, "
            f"{config.layers} layers of {config.width}",
            sides,
            config.clock,
            work=len(pairs),
            unit="pair",
            check=apart,
        )


if __name__ == "__main__":
    main()
