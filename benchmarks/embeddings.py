"""Sentence vectors: encoding and contrastive steps beside sentence-transformers.

    python -m benchmarks.embeddings [--part encode step] [--texts FILE] [--dtype bfloat16]

Needs the `parity` extra (`make bench` sets it up). Weights are random, of one encoder in both. benchmarks/harness.py
says how it is timed; benchmarks/vectors.py has what is done with the vectors.
"""

import tempfile
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.random_bert import random_bert
from benchmarks.side import Run
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.sentences import split_sentences
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.text_encoder import TextEncoder
from retrieval.texts import read_texts
from retrieval.tuning.batches import Batches
from retrieval.tuning.simcse import TuningRecipe
from retrieval.vectors.encoding import Encoding, all_vectors, encoder
from rope.encoder.huggingface import write_encoder
from training.flags import FLAT
from training.loop import to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.optimizer import OptimizerConfig
from training.partition import Dtype
from training.step import compile_step


@dataclass(frozen=True, kw_only=True)
class Config:
    part: tuple[Literal["encode", "step"], ...] = ("encode", "step")
    """Which are run."""
    texts: str = str(CORPUS / "train.jsonl")
    """Short texts, one a line; of the built-in corpus its sentences."""
    count: int = 1000
    """Of the texts."""
    width: int = 768
    layers: int = 12
    batch: int = 64
    """Pairs of a contrastive step."""
    tokens: int = 2048
    """Positions of a batch that is encoded, ours."""
    dtype: Dtype = "float32"
    """Of encoding; of bfloat16 sentence-transformers' weights too."""
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def read(config: Config) -> list[str]:
    texts = read_texts(config.texts)
    if config.texts == str(CORPUS / "train.jsonl"):
        texts = (sentence for text in texts for sentence in split_sentences(text, faithful=False))
    return list(islice(texts, config.count))


def random_encoder(config: Config, texts: list[str]) -> TextEncoder:
    """Of the texts' characters."""
    vocabulary = [*SPECIALS, *sorted({c for text in texts for c in text.lower() if not c.isspace()})]
    return random_bert(PegasusTokenizer(vocabulary), config.width, config.layers)


def sentence_transformer(config: Config, texts: list[str]):
    """The same model as sentence-transformers loads it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    source = random_encoder(config, texts)
    with tempfile.TemporaryDirectory() as folder:
        write_encoder(
            Path(folder) / "bert",
            source.model,
            source.config,
            write_more=partial(write_tokenizer, source.tokenizer),
        )
        loaded = Transformer(str(Path(folder) / "bert"), max_seq_length=64)
    return SentenceTransformer(modules=[loaded, Pooling(config.width, "mean")])


def our_encoding(config: Config, texts: list[str]) -> Run:
    mesh = make_mesh(MeshConfig())
    encoding = Encoding(dtype=config.dtype, tokens=config.tokens)
    with jax.set_mesh(mesh):
        encode = encoder(random_encoder(config, texts), ["mean"], encoding)

    def run() -> np.ndarray:
        with jax.set_mesh(mesh):
            return all_vectors(encode, texts)

    return run


def their_encoding(config: Config, texts: list[str]) -> Run:
    import torch

    model = sentence_transformer(config, texts).to(getattr(torch, config.dtype))

    def run() -> np.ndarray:
        vectors = model.encode(texts, show_progress_bar=False, convert_to_tensor=True)
        return vectors.float().cpu().numpy()

    return run


def cosines(ours: np.ndarray, theirs: np.ndarray) -> str:
    found = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return f"cosines of the two at least 1 - {1 - found.min():.1e}"


def our_step(config: Config, texts: list[str]) -> Run:
    source, mesh = random_encoder(config, texts), make_mesh(MeshConfig())
    optimizer = OptimizerConfig(learning_rate=1e-5, weight_decay=0, warmup=1, clip=0)
    epochs = config.clock.repeats + 2
    recipe = TuningRecipe(loss="pairs", pooling="mean", batch_size=config.batch, epochs=epochs, optimizer=optimizer)
    ids = [[source.tokenizer.frame_source(source.tokenizer.encode(x), 64) for x in pair] for pair in pairs(texts)]
    made = Batches(ids, None, recipe.loop(len(ids)), 64, 1, source.tokenizer.pad_id, mesh)
    program, batches = recipe.program(source.config, made.form, 1000), made(0, WHOLE)
    with jax.set_mesh(mesh):
        state = jax.jit(program.init)()
        state = state.replace(model=jax.tree.map(jax.numpy.asarray, source.model))
        compiled = compile_step(program.step, state, to_mesh(next(batches), mesh, 1))

    def run() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, sums = compiled(state, to_mesh(next(batches), mesh, 1))
            return float(sums["loss"][0])

    return run


def their_step(config: Config, texts: list[str]) -> Run:
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = sentence_transformer(config, texts).train()
    loss = MultipleNegativesRankingLoss(model)
    adam = torch.optim.AdamW(model.parameters(), 1e-5)
    random, chosen = np.random.default_rng(0), pairs(texts)

    def run() -> float:
        rows = random.permutation(len(chosen))[: config.batch]
        features = [model.preprocess([chosen[i][side] for i in rows]) for side in (0, 1)]
        for one in features:
            one.update({name: x.to(model.device) for name, x in one.items() if torch.is_tensor(x)})
        found = loss(features, None)
        adam.zero_grad()
        found.backward()
        adam.step()
        return found.item()

    return run


def pairs(texts: list[str]) -> list[tuple[str, str]]:
    return list(zip(texts[::2], texts[1::2], strict=False))


def encode(config: Config) -> None:
    texts = read(config)
    tokenizer = random_encoder(config, texts).tokenizer
    length = np.mean([len(tokenizer.encode(text)) + 2 for text in texts])
    measure(
        f"encoding {len(texts):,} texts of {length:.1f} ids, {config.layers} layers of {config.width}, {config.dtype}",
        {"ours": partial(our_encoding, config, texts), "sentence-transformers": partial(their_encoding, config, texts)},
        config.clock,
        work=len(texts),
        unit="text",
        check=cosines,
    )


def step(config: Config) -> None:
    texts = read(config)
    measure(
        f"a contrastive step of {config.batch} pairs, {config.layers} layers of {config.width}",
        {"ours": partial(our_step, config, texts), "sentence-transformers": partial(their_step, config, texts)},
        config.clock,
        unit="step",
    )


PARTS = {"encode": encode, "step": step}


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(PARTS[part], config) for part in config.part))


if __name__ == "__main__":
    main()
