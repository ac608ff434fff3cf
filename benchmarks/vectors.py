"""What is done with vectors: whitening beside NumPy and scikit-learn, search beside FAISS.

    python -m benchmarks.vectors [--part whiten search] [--vectors 1000000] [--indexed 100000 1000000]
    python -m benchmarks.vectors --part claim --model FOLDER --pairs FILE [--among FILE …]

Needs the `parity` extra (`make bench` sets it up). claim wants a trained model and pairs of question TAB text.
benchmarks/harness.py says how it is timed.
"""

import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from pegasus_zh.text_encoder import load_text_encoder
from retrieval.search.commands import ranking
from retrieval.search.index import ExactIndex, FaissIndex, Found
from retrieval.texts import read_columns
from retrieval.vectors.arrays import unit
from retrieval.vectors.encoding import Encoding, encoder
from retrieval.vectors.pooling import Pooling
from retrieval.vectors.whitening import moments, whiten
from training.flags import FLAT
from training.mesh import MeshConfig, make_mesh

WIDTH = 256  # of the vectors that are searched


@dataclass(frozen=True, kw_only=True)
class Config:
    part: tuple[Literal["whiten", "search", "claim"], ...] = ("whiten", "search")
    """Which are run."""
    vectors: int = 1_000_000
    """To be whitened, of 768 dimensions."""
    indexed: tuple[int, ...] = (100_000, 1_000_000)
    """Vectors to be searched, of 256 dimensions."""
    model: str = ""
    pairs: str = ""
    among: tuple[str, ...] = ()
    """Files of further texts that are searched too (claim)."""
    poolings: tuple[Pooling, ...] = ("first-last",)
    """Side by side, the vectors of claim."""
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


def normal(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def pieces(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[i : i + 16384] for i in range(0, len(x), 16384))


def our_whitening(count: int) -> Run:
    x = normal(count, 768)

    def run() -> None:
        whiten(moments(pieces(x)))

    return run


def product(count: int) -> Run:
    x = normal(count, 768)
    return lambda: x.T @ x


def incremental(count: int) -> Run:
    from sklearn.decomposition import IncrementalPCA

    x = normal(count, 768)

    def run() -> None:
        IncrementalPCA(whiten=True).fit(x)

    return run


def whitening(config: Config) -> None:
    few = max(config.vectors // 10, 800)  # for who is slow; of fewer than 768 it finds fewer directions
    sides = {
        "ours": partial(our_whitening, config.vectors),
        "NumPy, X.T @ X alone": partial(product, config.vectors),
        "IncrementalPCA": partial(incremental, few),
    }
    measure(
        f"a whitening of {config.vectors:,} x 768 (IncrementalPCA: {few:,})",
        sides,
        config.clock,
        work={name: few if name == "IncrementalPCA" else config.vectors for name in sides},
        unit="vector",
    )
    for count in (config.vectors // 10, config.vectors):
        x = normal(count, 768)
        tracemalloc.start()
        moments(pieces(x))
        print(f"  at most {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB for {count:,} vectors")
        tracemalloc.stop()


def searching(count: int, whose: Literal["ours", "faiss"]) -> Run:
    x, queries = unit(normal(count, WIDTH)), unit(normal(1000, WIDTH, 1))
    if whose == "ours":
        index = ExactIndex(WIDTH)
    else:
        import faiss

        index = faiss.IndexFlatIP(WIDTH)
    index.add(x)

    def run() -> tuple[np.ndarray, np.ndarray]:
        found = index.search(queries, 10)
        return (found.scores, found.places) if isinstance(found, Found) else found

    return run


def agreement(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> str:
    (scores, places), (their_scores, their_places) = ours, theirs
    apart = np.abs(scores - their_scores).max()
    return f"the same places: {np.mean(places == their_places):.4%}; scores apart by at most {apart:.1e}"


def search(config: Config) -> None:
    def of(count: int) -> None:
        measure(
            f"the 10 nearest of {count:,} x {WIDTH} to 1,000 queries",
            {"ours": partial(searching, count, "ours"), "faiss IndexFlatIP": partial(searching, count, "faiss")},
            config.clock,
            work=1000,
            unit="query",
            check=agreement,
        )

    in_turn(*(partial(of, count) for count in config.indexed))


def whitened(folder: str, kind: Literal["flat", "ivf"], kept: int | None) -> Run:
    """Questions to texts, whose vectors lie in the folder. The first run returns the places, and the bytes of all."""
    texts, questions = (np.load(Path(folder) / f"{name}.npy") for name in ("texts", "questions"))
    if kept is not None:
        map_ = whiten(moments([texts]), kept)
        texts, questions = map_(texts), map_(questions)
    index = FaissIndex(kind, texts.shape[1], breadth=5)
    index.add(unit(texts))
    asked = unit(questions)
    return lambda: (index.search(asked, 10).places, 4 * texts.size)


def claim(config: Config) -> None:
    """Whitening to a third of the dimensions: time, memory, MRR@10, as ratios."""
    rows = [row.columns for row in read_columns(config.pairs)]
    further = (text for path in config.among for row in read_columns(path) for text in row.columns if len(text) > 3)
    texts = list(dict.fromkeys([*(row[1] for row in rows), *further]))
    place = {text: i for i, text in enumerate(texts)}
    wanted = np.array([place[row[1]] for row in rows])
    source = load_text_encoder(config.model)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(make_mesh(MeshConfig())):
        run = encoder(source, config.poolings, Encoding())
        for name, those in {"texts": texts, "questions": [row[0] for row in rows]}.items():
            found = np.concatenate([part.reshape(len(part), -1) for part in run(those)])
            np.save(Path(folder) / f"{name}.npy", found)
        kept = {"as they are": None} | {f"whitened to {n}": n for n in (found.shape[1], found.shape[1] // 3)}

        def of(kind: Literal["flat", "ivf"]) -> None:
            measured = measure(
                f"{len(rows):,} questions to {len(texts):,} texts, {kind}",
                {name: partial(whitened, folder, kind, n) for name, n in kept.items()},
                config.clock,
                work=len(rows),
                unit="question",
            )
            for name, (places, size) in measured.values.items():
                mrr, recall = ranking(places, wanted)
                print(f"  {name:24} MRR@10 {mrr:.4f}, recall@10 {recall:.4f}, {size / 2**20:.1f} MiB of vectors")

        in_turn(partial(of, "flat"), partial(of, "ivf"))


PARTS = {"whiten": whitening, "search": search, "claim": claim}


def main() -> None:
    config = tyro.cli(Config)
    in_turn(*(partial(PARTS[part], config) for part in config.part))


if __name__ == "__main__":
    main()
