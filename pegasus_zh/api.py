"""What others call: pretraining in one call, texts written by a model, hidden states of an encoder."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh import pretrain as t5
from pegasus_zh import text_encoder
from pegasus_zh.generation import placed, writer
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.load import Loaded, Semantics, load
from pegasus_zh.text.lists import listed, many
from pegasus_zh.text_encoder import TextEncoder, load_text_encoder, rows_of_texts
from pegasus_zh.writing import Writing, bucket
from rope.decoding.search import Search
from rope.encoder import roformer
from rope.encoder.roformer import RoFormer, encode_layers
from training.files.buckets import path_of
from training.files.errors import DataError
from training.flags import changed
from training.mesh import MeshConfig, mesh_of
from training.metrics import read_metrics
from training.partition import Dtype, abstract, check_divisible, parts_of, place, replicate, spec
from training.ranges import check_number
from training.step import compiler_options

__all__ = [
    "Encoder", "Run", "Search", "States", "Writer",
    "load_encoder", "load_writer", "pretrain_encoder", "pretrain_t5",
]  # fmt: skip

Paths = Path | str | Sequence[Path | str]
AnyMesh = jax.sharding.Mesh | MeshConfig | None
SearchName = Literal["greedy", "beams", "draws"]
SEARCHES: dict[str, Search] = {"greedy": Search(), "beams": Search(beams=4), "draws": Search(temperature=1.0)}
Config = TypeVar("Config")


@dataclass(frozen=True)
class Run:
    """What a training has come to; its folder is what load_writer, load_encoder and Embedder read."""

    folder: Path
    finished: bool  # else it was told to stop: the same call goes on
    metrics: dict[str, float]  # the last of each name, those of held-out documents as eval_…


def pretrain_t5(
    data: Paths | None = None,
    preset: str = "tiny",
    steps: int | None = None,
    folder: Path | str | None = None,
    mesh: MeshConfig | None = None,
    **settings: Any,
) -> Run:
    """Pretrains T5-PEGASUS on documents, or resumes that in the folder; the same as the command scripts.pretrain.

    data: files and patterns of documents (docs/prepare.md), by default the corpus that comes with the project. preset:
    a name of pegasus_zh.t5.mt5.PRESETS, whose recipe goes with it. folder: by default runs/PRESET. settings: any other
    flag of the command, such as batch_size=32, learning_rate=1e-3, selector="lead", dtype="bfloat16"; one process
    prepares unless `workers` are given. Raises ValueError for an unknown preset, flag or kind of value, DataError for
    documents that cannot be used, and as training does.
    """
    config = _preset(preset, mt5.PRESETS, t5.defaults)
    config = changed(config, _settings(data, steps, folder, mesh, settings))
    return _run(config.folder, t5.pretrain(config).finished)


def pretrain_encoder(
    data: Paths | None = None,
    preset: str = "tiny",
    steps: int | None = None,
    folder: Path | str | None = None,
    mesh: MeshConfig | None = None,
    **settings: Any,
) -> Run:
    """Pretrains RoFormer or BERT by masked language model; the same as the command scripts.pretrain_encoder.

    preset: a name of rope.encoder.roformer.PRESETS; folder: by default runs/encoder for `tiny`. The rest, and the
    errors, as pretrain_t5 has them; settings are such as positions="learned", theta="1000^-t", length=64.
    """
    config = _preset(preset, roformer.PRESETS, text_encoder.defaults)
    config = changed(config, _settings(data, steps, folder, mesh, settings))
    return _run(config.encoder.folder, text_encoder.pretrain(config).finished)


def _preset(name: str, presets: Mapping[str, Any], defaults: Any) -> Any:
    if name not in (*presets,):
        raise ValueError(f"preset is {name!r}: it must be one of {', '.join(presets)}")
    return defaults(name)


def _settings(
    data: Paths | None,
    steps: int | None,
    folder: Path | str | None,
    mesh: MeshConfig | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    if data is not None:
        data = tuple(data) if isinstance(data, Iterable) and not isinstance(data, (str, Path)) else (data,)
        if not (data and all(map(str, data))):
            raise DataError("data is empty: name files or patterns, or leave it out for the built-in corpus")
    named = {"data": data, "steps": steps, "folder": folder, "mesh": mesh}
    return {"workers": 1} | settings | {name: value for name, value in named.items() if value is not None}


def _run(folder: str, finished: bool) -> Run:
    metrics: dict[str, float] = {}
    for row in read_metrics(path_of(folder, "folder") / "metrics.jsonl"):
        metrics |= row
    return Run(path_of(folder, "folder"), finished, metrics)


class Writer:
    """A model that writes: `load_writer("runs/tiny")(texts)`."""

    def __init__(self, loaded: Loaded, *, dtype: Dtype = "float32", mesh: AnyMesh = None):
        self._mesh = mesh_of(mesh)
        check_divisible(self._mesh, mt5.sizes(loaded.config))
        with jax.set_mesh(self._mesh):
            self._loaded = placed(loaded, dtype)

    @property
    def source(self) -> str:
        """One line on where the model is from."""
        return self._loaded.source

    def __call__(
        self,
        texts: Iterable[str],
        search: SearchName | Search = "greedy",
        *,
        max_source: int = 256,
        max_target: int = 32,
        batch_size: int = 32,
        seed: int = 0,
        forbid: Sequence[str] = (),
        begin: str = "",
    ) -> list[str]:
        """What the model writes for each text, in order: the best of several answers.

        search: greedy; beams, four of them; draws, at temperature 1; or any Search, such as
        Search(temperature=0.7, top_p=0.9). max_source, max_target: ids that are read and written at most. batch_size:
        texts that are decoded together. seed: of draws; a text's own depends on it and on the text's number. forbid:
        words that are not written. begin: what every text begins with. The first call of each length compiles. Raises
        ValueError for a string where a list belongs, no texts, an unknown search, and numbers that cannot be.
        """
        limits = {"max_source": max_source, "max_target": max_target, "batch_size": batch_size, "seed": seed}
        return [best for best, *_ in self.several(texts, search, **limits, forbid=forbid, begin=begin)]

    def several(
        self, texts: Iterable[str], search: SearchName | Search, *, batch_size: int = 32, **settings: Any
    ) -> list[list[str]]:
        """As many texts for each text as the search is asked for, the best first: `Search(beams=4, answers=3)`, or
        `Search(temperature=1.0, answers=3)`. The settings, and the errors, are those of a call."""
        found = listed(texts)
        if not isinstance(search, Search) and search not in (*SEARCHES,):
            raise ValueError(f"search is {search!r}: it must be {', '.join(SEARCHES)}, or a Search")
        settings["forbid"] = tuple(many(settings.get("forbid", ())))
        search = search if isinstance(search, Search) else SEARCHES[search]
        writing = Writing(batch_size=batch_size, search=search, **settings)
        writing = replace(writing, batch_size=_rows(batch_size, len(found)))
        with jax.set_mesh(self._mesh):
            return list(writer(self._loaded, writing)(found))


def _rows(batch_size: int, texts: int) -> int:
    """Rows of a batch of so many texts: few different numbers, each of which is compiled."""
    return min(batch_size, 1 << (texts - 1).bit_length())


def load_writer(
    path: Path | str,
    *,
    step: int | None = None,
    semantics: Semantics = "auto",
    dtype: Dtype = "float32",
    mesh: AnyMesh = None,
) -> Writer:
    """What writes with the model at `path`: a run of pretrain_t5 or scripts.finetune, a folder of transformers
    (mT5, T5-PEGASUS), or a bert4keras checkpoint.

    step: which checkpoint of several. semantics: what the weights were trained by, where the source does not tell
    (pegasus_zh/t5/load.py). dtype: of the computation. mesh: by default all devices. Raises DataError for what is no
    such model.
    """
    return Writer(load(path, semantics=semantics, step=step), dtype=dtype, mesh=mesh)


class States(NamedTuple):
    """Of n texts in rows of T positions, as many as the longest has ids."""

    states: np.ndarray  # float32 [n, T, D]; of no meaning where the mask is False
    mask: np.ndarray  # bool [n, T]: is there a token?
    ids: np.ndarray  # int32 [n, T]


class Encoder:
    """An encoder with its tokenizer: `load_encoder("runs/encoder").states(texts)`."""

    def __init__(self, source: TextEncoder, *, dtype: Dtype = "float32", mesh: AnyMesh = None):
        self.config, self.tokenizer = source.config, source.tokenizer
        self._mesh = mesh_of(mesh)
        check_divisible(self._mesh, roformer.sizes(source.config))
        config = changed(source.config, {"dtype": dtype})
        with jax.set_mesh(self._mesh):
            self._model = place(source.model, abstract(partial(roformer.init, config, jax.random.key(0))))

        def encode(model: RoFormer, ids: jax.Array, segments: jax.Array, layer: int) -> jax.Array:
            (states,) = encode_layers(model, ids, segments, config, outputs=(layer,))
            return replicate(states.astype(jnp.float32))

        self._encode = jax.jit(encode, static_argnames="layer", compiler_options=compiler_options())

    def states(
        self, texts: Iterable[str], layer: int = -1, *, max_length: int | None = None, batch_size: int = 32
    ) -> States:
        """The hidden states of each text's tokens, [CLS] and [SEP] among them.

        layer: 0 after the first, -1 after the last. max_length: ids of a text at most, of longer ones the end is cut;
        by default 512, or as many as the model has learned positions. Raises ValueError for a string where a list
        belongs, no texts, and a layer that is not there; DataError for texts longer than learned positions.
        """
        found, c = listed(texts), self.config
        most = c.max_positions if c.positions == "learned" else None
        length = min(512, most or 512) if max_length is None else max_length
        check_number("max_length", length, 3)
        check_number("layer", layer, -math.inf)
        check_number("batch_size", batch_size, 1)
        if most and length > most:
            raise DataError(f"max_length is {length}: the model has {most} learned positions; give that or less")
        if not -c.layers <= layer < c.layers:
            raise ValueError(
                f"layer is {layer}: the model has {c.layers}, 0 to {c.layers - 1}, or from the end -1 to {-c.layers}"
            )
        ids, segments = rows_of_texts(self.tokenizer, found, length)
        states = np.empty((*ids.shape, c.width), np.float32)
        rows, width = _rows(batch_size, len(found)), bucket(ids.shape[1], length)
        with jax.set_mesh(self._mesh):
            rows = -(-rows // parts_of("batch")) * parts_of("batch")
            for first in range(0, len(ids), rows):
                part = slice(first, first + rows)
                padded = [np.full((rows, width), fill, np.int32) for fill in (self.tokenizer.pad_id, 0)]
                for wide, x in zip(padded, (ids[part], segments[part]), strict=True):
                    wide[: len(x), : x.shape[1]] = x
                there = [jax.device_put(x, spec("batch", None)) for x in padded]
                made = np.asarray(self._encode(self._model, *there, layer=layer))
                states[part] = made[: len(ids[part]), : ids.shape[1]]
        return States(states, segments.astype(bool), ids)


def load_encoder(
    path: Path | str,
    *,
    step: int | None = None,
    dtype: Dtype = "float32",
    mesh: AnyMesh = None,
) -> Encoder:
    """The encoder at `path`: a run of pretrain_encoder or scripts.simcse,
    or a folder of transformers (BERT, RoFormer, …).

    step: which checkpoint of several. dtype: of the computation. mesh: by default all devices. Raises DataError for
    what is no such model.
    """
    return Encoder(load_text_encoder(path, step=step), dtype=dtype, mesh=mesh)
