"""Files to files of pairs by a model: neighbours of its vectors, and what it writes. The rest is in commands."""

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from pegasus_zh.decoders import Ready, load_decoder
from pegasus_zh.t5.load import Semantics
from pegasus_zh.text.losses import counting
from pegasus_zh.writing import Writing
from retrieval.pairs.mined import Bounds, neighbour_pairs
from retrieval.pairs.tally import Tally, check_out, distinct, finish
from retrieval.pairs.templates import Templates, read_templates
from retrieval.pairs.written import DECAY, DRAWS, fitting, kept, written
from retrieval.search.index import Kind, make_index
from retrieval.texts import read_texts
from retrieval.vectors.arrays import check_finite
from retrieval.vectors.encoding import Encoding, encoder
from retrieval.vectors.pooling import Pooling, check_poolings
from retrieval.vectors.source import SentenceEncoder, load_sentence_encoder
from retrieval.vectors.whitening import moments, whiten
from training.files.atomic import resumable_write
from training.files.errors import DataError
from training.flags import FLAT
from training.mesh import MeshConfig, make_mesh
from training.metrics import progress_bar
from training.partition import Dtype
from training.ranges import check_lists, check_ranges


@dataclass(frozen=True, kw_only=True)
class MineConfig:
    """Nearest neighbours among short texts, by an encoder's vectors."""

    model: str
    """A work folder of scripts.pretrain_encoder or scripts.simcse, or a folder of transformers or
    sentence-transformers."""
    data: tuple[str, ...]
    """.txt (one text a line), .jsonl, .json or .csv (see --field) or .tsv (the last column), also .gz and .zst."""
    out: str
    """.tsv: pairs; .jsonl: groups of two, {text, synonyms: [...]}."""
    field: str = "text"
    """The JSON field with a text."""
    pooling: Pooling | Literal["auto"] = "auto"
    """cls (P1), pooler (P2: SimBERT, RoFormer-Sim), mean (P3), first-last (P4), last-two or pooler-tanh; auto:
    what the model was tuned with, as its folder says it, else mean."""
    whiten: int = 0
    """Whiten the vectors, fitted on these texts, and keep so many dimensions, so that cosines spread; 0: no whitening.
    """
    kind: Kind = "exact"
    """How neighbours are sought: exact, all compared, on the devices; flat, ivf, hnsw, pq: FAISS, on a CPU."""
    bounds: Annotated[Bounds, FLAT] = dataclasses.field(default_factory=Bounds)
    """Which neighbours are a pair."""
    encoding: tyro.conf.OmitArgPrefixes[Encoding] = dataclasses.field(default_factory=Encoding)
    """Lengths and batches."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, whiten=0)


def mine(config: MineConfig) -> int:
    """Writes `config.out`, whole or not at all. Raises DataError, with file, line and remedy."""
    out, tally = check_out(config.out, config.data), Tally()
    source = load_sentence_encoder(config.model)
    pooling = source.choose(config.pooling)
    check_poolings([pooling], source.text.config, config.model)
    if config.whiten > (width := source.width(pooling)):
        raise DataError(f"--whiten {config.whiten}: the model's vectors have {width} dimensions; give fewer")
    mesh = make_mesh(config.mesh)
    index = make_index(config.kind, config.whiten or width, mesh=mesh)  # raises where its library is missing
    texts = list(chain.from_iterable(read_texts(path, config.field) for path in config.data))
    tally.read = f"{', '.join(config.data)}: {len(texts):,} texts"
    texts = [texts[place] for place in distinct(texts, tally)]
    found = []
    if len(texts) > 1:
        vectors = _encoded(config, source, pooling, mesh, texts)
        if config.whiten:
            vectors = whiten(moments([vectors]), config.whiten)(vectors)
            if vectors.shape[1] < config.whiten:  # few texts vary in few directions
                index = make_index(config.kind, vectors.shape[1], mesh=mesh)
        with progress_bar(0, len(texts), "text compared") as bar:
            found = neighbour_pairs(texts, vectors, config.bounds, tally, index, bar.update)
    return finish(out, [(pair.first, pair.second) for pair in found], tally)


def _encoded(
    config: MineConfig, source: SentenceEncoder, pooling: Pooling, mesh: jax.sharding.Mesh, texts: list[str]
) -> np.ndarray:
    """float32 [n, D]; of what is unknown or cut is told."""
    tokenizer, lost = counting(source.text.tokenizer)
    with jax.set_mesh(mesh), progress_bar(0, len(texts), "text") as bar:
        encode = encoder(source.text._replace(tokenizer=tokenizer), [pooling], source.encoding(config.encoding))
        parts = []
        for part in source.finish(encode, pooling, source.prompt_of_documents)(texts):
            parts.append(part[:, 0])
            bar.update(len(parts[-1]))
    lost().report_any(", ".join(config.data))
    vectors = np.concatenate(parts)
    check_finite(vectors, 0, f"{config.model}, of {', '.join(config.data)}")
    return vectors


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """Pairs that a model writes by instructions, each held against the others; the same command goes on."""

    model: str
    """A work folder of scripts.pretrain or scripts.finetune, or of a RoFormer that writes, or a folder of transformers
    of either."""
    data: tuple[str, ...]
    """.txt (one text a line), .jsonl, .json or .csv (see --field) or .tsv (the last column), also .gz and .zst."""
    out: str
    """.tsv: text TAB written TAB score, for scripts.simcse --loss cosent; with --alike also .jsonl of groups of two."""
    field: str = "text"
    """The JSON field with a text."""
    templates: str = ""
    """A JSON file of instructions, as retrieval/pairs/templates.json, which is the default."""
    decay: float = DECAY
    """How sharply what other instructions would write is left out of what is written by one; 0: not at all."""
    alike: bool = False
    """Write the pairs of score 1 alone, without it: for stage 1 and --loss pairs."""
    step: int | None = None
    """Which checkpoint of several."""
    semantics: Semantics = "auto"
    """What a T5's weights were trained by, where the source does not tell."""
    dtype: Dtype = "float32"
    """Of the computation."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """The devices' arrangement."""
    writing: tyro.conf.OmitArgPrefixes[Writing] = dataclasses.field(
        default_factory=lambda: Writing(max_source=128, max_target=40, search=DRAWS)
    )
    """Lengths, batch and search."""

    def __post_init__(self):
        check_lists(self, data=None)
        check_ranges(self, decay=0)


def write(config: WriteConfig) -> int:
    """Writes `config.out`, whole or not at all; what a killed command had written is kept beside it. Raises DataError,
    with file, line and remedy."""
    out = check_out(config.out, config.data, (".tsv", ".jsonl") if config.alike else (".tsv",))
    templates, tally = read_templates(config.templates), Tally()
    texts = list(chain.from_iterable(read_texts(path, config.field) for path in config.data))
    with jax.set_mesh(make_mesh(config.mesh)):
        ready = load_decoder(config.model, step=config.step, semantics=config.semantics, dtype=config.dtype)
        fit = fitting(ready, templates, texts, config.writing.max_source, tally)
        tally.read = f"{', '.join(config.data)}: {len(texts):,} texts"
        settings = (templates, fit, config.writing, config.decay, config.dtype, ready.fingerprint)
        if not fit:
            return finish(out, [], tally)
        identity = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
        path = _all_written(config, ready, templates, fit, out, identity)
    with open(path, encoding="utf-8", errors="surrogatepass") as lines:
        pairs = kept(fit, map(json.loads, lines), templates, tally)
    tally.read += "".join(
        f", {count:,} of score {score:g}" for score, count in sorted(Counter(pair.score for pair in pairs).items())
    )
    rows: list[tuple[str, ...]] = [(*pair[:2], f"{pair.score:g}") for pair in pairs]
    if config.alike:
        rows = [pair[:2] for pair in pairs if pair.score == 1]
    count = finish(out, rows, tally)
    path.unlink()
    return count


def _all_written(
    config: WriteConfig, ready: Ready, templates: Templates, texts: list[str], out: Path, identity: str
) -> Path:
    """A hidden file beside `out` with what was written for each text, a line each; of a killed command it goes on."""
    path = out.absolute().with_name(f".{out.name}.{identity}.jsonl")
    if not path.exists():
        with resumable_write(path, identity) as file:
            before = file.read()
            done = before.count(b"\n")
            file.truncate(before.rfind(b"\n") + 1)  # a last line may be cut
            made = written(ready, templates, texts[done:], config.writing, config.decay, done)
            with progress_bar(done, len(texts), "text") as bar:
                for of_text in made:
                    file.write((json.dumps(of_text, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
                    file.flush()
                    bar.update()
    return path
