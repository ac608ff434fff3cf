"""Sentence vectors: encoding and contrastive steps beside sentence-transformers, whitening beside NumPy and
scikit-learn, search beside FAISS.

    python -m benchmarks.embeddings [--part encode step whiten search claim] [--texts FILE]
                                    [--model FOLDER --pairs FILE]

Needs the `parity` extra (`make bench` sets it up). Who is compared takes turns; medians are printed, and the medians of
each round's ratio. Weights are random, of one encoder in both; claim wants a trained model and pairs of question TAB
text.
"""

import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import faiss
import jax
import numpy as np
import torch
import tyro
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling
from sentence_transformers.sentence_transformer.modules import Transformer
from sklearn.decomposition import IncrementalPCA

from benchmarks.critics import ratio, take_turns
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text.huggingface_tokenizer import write_tokenizer
from pegasus_zh.text.sentences import split_sentences
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from pegasus_zh.text_encoder import TextEncoder, load_text_encoder
from retrieval.search.commands import ranking
from retrieval.search.index import ExactIndex, FaissIndex
from retrieval.texts import read_columns, read_texts
from retrieval.tuning.batches import Batches
from retrieval.tuning.simcse import TuningRecipe
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encoding, encoder
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.whitening import moments, whiten
from rope.encoder.huggingface import write_encoder
from rope.encoder.roformer import RoFormer, RoFormerConfig, init
from training.files.weights import empty
from training.loop import to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.optimizer import OptimizerConfig
from training.step import compile_step

Part = Literal["encode", "step", "whiten", "search", "claim"]


@dataclass(frozen=True, kw_only=True)
class Config:
    part: tuple[Part, ...] = ("encode", "step", "whiten", "search")
    """Which are run."""
    texts: str = str(CORPUS / "train.jsonl")
    """Short texts, one a line; of the built-in corpus its sentences."""
    count: int = 1000
    """Of the texts."""
    width: int = 768
    layers: int = 12
    batch: int = 64
    """Pairs of a contrastive step."""
    vectors: int = 1_000_000
    """To be whitened."""
    indexed: tuple[int, ...] = (100_000, 1_000_000)
    """Vectors to be searched, of 256 dimensions."""
    model: str = ""
    pairs: str = ""
    among: tuple[str, ...] = ()
    """Files of further texts that are searched too (claim)."""
    poolings: tuple[Pooling, ...] = ("first-last",)
    """Side by side, the vectors of claim."""
    repeats: int = 5


def tell(title: str, times: dict[str, list[float]], work: float, unit: str, base: str = "ours") -> None:
    print(f"{title}: medians of {len(times[base])}")
    for name, taken in times.items():
        each = statistics.median(taken)
        print(
            f"  {name:24} {work / each:12,.1f} {unit}/s   {each:8.3f} s   "
            f"{ratio(times, name, base)} x the time of {base}"
        )


def read(config: Config) -> list[str]:
    texts = read_texts(config.texts)
    if config.texts == str(CORPUS / "train.jsonl"):
        texts = (sentence for text in texts for sentence in split_sentences(text, faithful=False))
    return list(islice(texts, config.count))


def random_bert(config: Config, texts: list[str], folder: Path) -> tuple[TextEncoder, SentenceTransformer]:
    """One BERT with random weights: ours, and as sentence-transformers loads it."""
    vocabulary = [*SPECIALS, *sorted({c for text in texts for c in text.lower() if not c.isspace()})]
    tokenizer = PegasusTokenizer(vocabulary)
    shape = RoFormerConfig(
        vocabulary=len(vocabulary), width=config.width, feed_forward=4 * config.width, heads=config.width // 64,
        layers=config.layers, positions="learned",
    )  # fmt: skip
    random = np.random.default_rng(0)

    def draw(path, x: np.ndarray) -> np.ndarray:
        noise = random.standard_normal(x.shape, np.float32)
        return 1 + 0.1 * noise if "scale" in jax.tree_util.keystr(path) else np.float32(0.05) * noise

    model: RoFormer = jax.tree.map_with_path(draw, empty(partial(init, shape)))
    write_encoder(folder, model, shape, write_tokenizer=partial(write_tokenizer, tokenizer))
    loaded = Transformer(str(folder), max_seq_length=64)
    return TextEncoder(model, shape, tokenizer), SentenceTransformer(
        modules=[loaded, TheirPooling(config.width, "mean")], device="cpu"
    )


def encode(config: Config) -> None:
    texts = read(config)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(make_mesh(MeshConfig())):
        source, theirs = random_bert(config, texts, Path(folder) / "bert")
        run = encoder(source, ["mean"], Encoding())
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: np.concatenate([part.vectors[:, 0] for part in run(texts)]),
            "sentence-transformers": lambda: theirs.encode(texts, show_progress_bar=False),
        }
        ours, wanted = (call() for call in calls.values())
        cosines = (ours * wanted).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(wanted, axis=1)
        print(
            f"cosines of the two: at least 1 - {1 - cosines.min():.1e}; "
            f"ids a text: {np.mean([len(source.tokenizer.encode(t)) + 2 for t in texts]):.1f}"
        )
        tell(
            f"encoding {len(texts):,} texts, {config.layers} layers of {config.width}",
            take_turns(calls, config.repeats),
            len(texts),
            "text",
        )


def step(config: Config) -> None:
    texts = read(config)
    chosen = list(zip(texts[::2], texts[1::2], strict=False))
    optimizer = OptimizerConfig(learning_rate=1e-5, weight_decay=0, warmup=1, clip=0)
    recipe = TuningRecipe(
        loss="pairs", pooling="mean", batch_size=config.batch, epochs=config.repeats + 2, optimizer=optimizer
    )
    with tempfile.TemporaryDirectory() as folder:
        source, theirs = random_bert(config, texts, Path(folder) / "bert")
        ids = [[source.tokenizer.frame_source(source.tokenizer.encode(x), 64) for x in pair] for pair in chosen]
        mesh = make_mesh(MeshConfig())
        made = Batches(ids, None, recipe.loop(len(ids)), 64, 1, source.tokenizer.pad_id, mesh)
        program, batches = recipe.program(source.config, made.form, 1000), made(0, WHOLE)
        with jax.set_mesh(mesh):
            state = jax.jit(program.init)()
            state = state.replace(model=jax.tree.map(jax.numpy.asarray, source.model))
            compiled = compile_step(program.step, state, to_mesh(next(batches), mesh, 1))

            def ours() -> None:
                nonlocal state
                state, sums = compiled(state, to_mesh(next(batches), mesh, 1))
                float(sums["loss"][0])

            loss = MultipleNegativesRankingLoss(theirs)
            adam = torch.optim.AdamW(theirs.parameters(), 1e-5)
            theirs.train()
            random = np.random.default_rng(0)

            def torchs() -> None:
                rows = random.permutation(len(chosen))[: config.batch]
                features = [theirs.tokenize([chosen[i][side] for i in rows]) for side in (0, 1)]
                found = loss(features, None)
                adam.zero_grad()
                found.backward()
                adam.step()
                found.item()

            times = take_turns({"ours": ours, "sentence-transformers": torchs}, config.repeats)
    tell(f"a contrastive step of {config.batch} pairs, {config.layers} layers of {config.width}", times, 1, "step")


def whitening(config: Config) -> None:
    x = np.random.default_rng(0).standard_normal((config.vectors, 768), np.float32)
    few = x[: max(config.vectors // 10, 8000)]
    pieces = lambda x: (x[i : i + 16384] for i in range(0, len(x), 16384))  # noqa: E731
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: whiten(moments(pieces(x))),
        "NumPy, X.T @ X alone": lambda: x.T @ x,
    }
    times = take_turns(calls, config.repeats)
    begin = time.perf_counter()
    IncrementalPCA(whiten=True).fit(few)
    slow = (time.perf_counter() - begin) * len(x) / len(few)
    tell(f"a whitening of {len(x):,} x 768", times, len(x), "vector")
    print(
        f"  scikit-learn's IncrementalPCA {slow:.1f} s, "
        f"{slow / statistics.median(times['ours']):.1f} x the time of ours (from {len(few):,} vectors)"
    )
    for count in (len(x) // 10, len(x)):
        tracemalloc.start()
        moments(pieces(x[:count]))
        print(f"  at most {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB for {count:,} vectors")
        tracemalloc.stop()


def directions(count: int, width: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, width), np.float32))


def search(config: Config) -> None:
    queries = directions(1000, 256, 1)
    for count in config.indexed:
        x = directions(count, 256)
        reference, index = faiss.IndexFlatIP(256), ExactIndex(256)
        reference.add(x)
        index.add(x)
        found, (scores, places) = index.search(queries, 10), reference.search(queries, 10)
        same = np.mean(found.places == places)
        print(f"the same places: {same:.4%}; scores apart by at most {np.abs(found.scores - scores).max():.1e}")
        calls = {
            "ours": lambda i=index: i.search(queries, 10),
            "faiss IndexFlatIP": lambda i=reference: i.search(queries, 10),
        }
        tell(
            f"the 10 nearest of {count:,} x 256 to 1,000 queries",
            take_turns(calls, config.repeats),
            len(queries),
            "query",
        )


def claim(config: Config) -> None:
    """Whitening to a third of the dimensions: time, memory, MRR@10, as ratios."""
    rows = [columns for _, columns in read_columns(config.pairs)]
    further = (text for path in config.among for _, row in read_columns(path) for text in row if len(text) > 3)
    texts = list(dict.fromkeys([*(row[1] for row in rows), *further]))
    place = {text: i for i, text in enumerate(texts)}
    wanted = np.array([place[row[1]] for row in rows])
    source = load_text_encoder(config.model)
    with jax.set_mesh(make_mesh(MeshConfig())):
        run = encoder(source, config.poolings, Encoding())
        both = (texts, [row[0] for row in rows])
        sides = [np.concatenate([part.vectors.reshape(len(part.vectors), -1) for part in run(x)]) for x in both]
    width = sides[0].shape[1]
    maps = {"as they are": lambda x: x}
    for kept in (width, width // 3):
        maps[f"whitened to {kept}"] = whiten(moments([sides[0]]), kept)
    for kind in ("flat", "ivf"):
        indexes, asked, calls = {}, {}, {}
        for name, map_ in maps.items():
            stored, asked[name] = (unit(map_(x)) for x in sides)
            indexes[name] = FaissIndex(kind, stored.shape[1], breadth=5)
            indexes[name].add(stored)
            calls[name] = partial(indexes[name].search, asked[name], 10)
        times = take_turns(calls, config.repeats)
        tell(f"{len(rows):,} questions to {len(texts):,} texts, {kind}", times, len(rows), "question", "as they are")
        for name, index in indexes.items():
            mrr, recall = ranking(index.search(asked[name], 10).places, wanted)
            print(
                f"  {name:24} MRR@10 {mrr:.4f}, recall@10 {recall:.4f}, "
                f"{4 * index.dimensions * len(texts) / 2**20:.1f} MiB of vectors"
            )


PARTS = {"encode": encode, "step": step, "whiten": whitening, "search": search, "claim": claim}


def main() -> None:
    config = tyro.cli(Config)
    for part in config.part:
        PARTS[part](config)


if __name__ == "__main__":
    main()
