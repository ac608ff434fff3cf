"""RoFormer and BERT as transformers stores them: the tensors' names, config.json, and a whole folder written.

transformers' two classes compute what this package does, so reading changes names and the side of a transposition. For
writing, rotary positions become a RoFormer (the half layout by reordering the dimensions of queries and keys), and what
is added to the embeddings, learned or not, becomes BERT's table; the rest is refused.

What a pooler ends in is not in the weights. It is tanh in BERT and none (linear) in SimBERT and RoFormer-Sim, whose
config.json does not say so: the caller does (`pooler`), or `pooler_activation` in config.json, or our own key
`pegasus_zh` there. transformers' RoFormer has no pooler and passes over the one that we write; its masked language
models, of BERT too, have none either.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from rope.config_files import SIZES
from rope.encoder.config_json import (
    CLASSES,
    GELU,
    OWN_KEY,
    POSITIONS,
    SETTINGS,
    Kind,
    check_biases,
    find_config,
    kind_of,
    read_config,
)
from rope.encoder.roformer import SINUSOID, Embeddings, PoolerKind, RoFormer, RoFormerConfig, init, position_of
from rope.layers.primitives import Linear, Norm
from rope.positions.angles import SINUSOIDAL, frequencies
from rope.positions.rotary import to_interleaved
from rope.positions.sinusoidal import sinusoidal
from training.files.atomic import atomic_write, check_new, read_json, write_json
from training.files.buckets import absolute, on_disk, path_of
from training.files.errors import DataError
from training.files.weights import (
    FLOATS,
    Stored,
    hollow,
    open_weights,
    read,
    read_tensors,
    write_safetensors,
)
from training.telling import tell

Pooler = Literal["auto", PoolerKind]
_BLOCKS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "inner": "intermediate.dense",
    "outer": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
_HEADS = ("classifier", "qa_outputs", "sequence_summary")  # on top of an encoder, for tasks
_DECODER = "cls.predictions.decoder"  # the product with the embedding: copies of its weight and of the head's bias


@dataclass(frozen=True)
class Names:
    """What files spell differently."""

    prefix: str = ""  # of all but the head: nothing, bert. or roformer.
    norm: tuple[str, str] = ("weight", "bias")  # gamma and beta in the first years
    head_bias: str = "cls.predictions.bias"


def encoder_tensors(model: RoFormer, names: Names) -> Iterator[tuple[str, Any]]:
    """Every array of the model, layer by layer, under its name in transformers' RoFormer or BERT.

    torch stores the kernel of a product [out, in]. Works on anything of the model's structure: gradients, shapes. Of
    NumPy arrays these are views, to read from or to write to.
    """

    def named(place: str, p: Linear | Norm) -> Iterator[tuple[str, Any]]:
        if isinstance(p, Norm):
            yield from zip((f"{place}.{end}" for end in names.norm), (p.scale, p.bias), strict=True)
        else:
            yield from ((f"{place}.weight", p.kernel.T), (f"{place}.bias", p.bias))

    first, e = f"{names.prefix}embeddings", model.embeddings
    yield f"{first}.word_embeddings.weight", e.word
    if e.position is not None:
        yield f"{first}.position_embeddings.weight", e.position
    yield f"{first}.token_type_embeddings.weight", e.type
    yield from named(f"{first}.LayerNorm", e.norm)
    if e.project is not None:
        yield from named(f"{names.prefix}embeddings_project", e.project)
    for i in range(len(model.blocks.attention_norm.scale)):
        for field, place in _BLOCKS.items():
            layer = jax.tree.map(lambda x, i=i: x[i], getattr(model.blocks, field))
            yield from named(f"{names.prefix}encoder.layer.{i}.{place}", layer)
    if model.pooler is not None:
        yield from named(f"{names.prefix}pooler.dense", model.pooler)
    if model.head is not None:
        yield from named("cls.predictions.transform.dense", model.head.transform)
        yield from named("cls.predictions.transform.LayerNorm", model.head.norm)
        yield names.head_bias, model.head.bias


def read_encoder(folder: Path | str, pooler: Pooler = "auto") -> tuple[RoFormer, RoFormerConfig]:
    """The RoFormer or BERT of a Hugging Face folder as float32 NumPy arrays; with head and pooler where they are there.

    pooler: what its dense layer is followed by, instead of what the folder says (see above); none leaves it out. Raises
    DataError for whatever does not fit, or is no such model.
    """
    if pooler not in get_args(Pooler):
        raise ValueError(f"pooler is {pooler!r}: it must be {', '.join(get_args(Pooler))}")
    file = find_config(on_disk(path_of(folder, "the model")))
    about, (stored, where) = read_json(file), open_weights(file.parent)
    check_biases(stored, where)
    if about.get("model_type") is None:
        about["model_type"] = kind_of(about, stored, file)
    config, told = read_config(about, file)
    kind: Kind = about["model_type"]
    names = _names_in(stored, kind)
    pools = [name for name in stored if name.startswith(f"{names.prefix}pooler.")]
    if pooler in ("tanh", "linear") and not pools:
        raise DataError(f"{where}: the model has no pooler, and {pooler!r} was asked for; leave that out")
    has_head = any(name.startswith("cls.predictions.") for name in stored)
    if has_head and about.get("tie_word_embeddings") is False and f"{_DECODER}.weight" not in stored:
        raise DataError(f"{where}: tie_word_embeddings is false, and there is no '{_DECODER}.weight'; set it to true")
    chosen: PoolerKind = (told if pooler == "auto" else pooler) if pools else "none"
    config = replace(config, head=has_head, pooler=chosen)
    table = f"{names.prefix}encoder.embed_positions.weight"
    heads = {head: [name for name in stored if name.startswith(f"{head}.")] for head in _HEADS}
    ignored = ["cls.seq_relationship.weight", "cls.seq_relationship.bias", f"{names.prefix}embeddings.position_ids"]
    ignored += [*chain.from_iterable(heads.values())]
    ignored += [table] if kind == "roformer" else []
    ignored += [f"{_DECODER}.weight", f"{_DECODER}.bias"] if has_head else []
    ignored += pools if chosen == "none" else []
    if kind == "roformer" and table in stored:
        _check_sinusoids(table, stored[table], config.head_size)
    tensors = partial(encoder_tensors, names=names)
    model = read_tensors(partial(init, config), tensors, stored, where, f"a {CLASSES[kind]} model", ignored)
    if passed := [head for head in _HEADS if heads[head]]:
        tell(f"{where}: what is on top of the encoder is passed over: {', '.join(passed)}")
    if has_head:
        _check_copy(f"{_DECODER}.weight", stored, model.embeddings.word, "the embedding")
        _check_copy(f"{_DECODER}.bias", stored, model.head.bias, names.head_bias)
    return model, config


def _names_in(stored: Mapping[str, Stored], kind: Kind) -> Names:
    bias, copy = Names.head_bias, f"{_DECODER}.bias"
    return Names(
        prefix="" if "embeddings.word_embeddings.weight" in stored else f"{kind}.",
        norm=("gamma", "beta") if any(name.endswith("LayerNorm.gamma") for name in stored) else Names.norm,
        head_bias=copy if copy in stored and bias not in stored else bias,
    )


def _check_copy(name: str, stored: Mapping[str, Stored], wanted: np.ndarray, what: str) -> None:
    if name in stored and not np.array_equal(read(name, stored[name]), wanted):
        raise DataError(f"{stored[name].file}: {name!r} is not {what} again; only models with a tied head are read")


def _check_sinusoids(name: str, stored: Stored, size: int) -> None:
    """transformers takes sines and cosines from this table, so one of other frequencies is another model."""
    rows = stored.shape[0] if stored.shape else 0
    table, wanted = np.asarray(read(name, stored), np.float32), _sinusoids(rows, size)
    if table.shape != wanted.shape or not np.all(np.abs(table - wanted) < 0.01):  # float16 and bfloat16 round
        raise DataError(f"{stored.file}: {name!r} is not the table of {SINUSOIDAL} for heads of {size}; not read")


def _sinusoids(rows: int, size: int) -> np.ndarray:
    """[rows, H]: sines, then cosines, in the precision that transformers makes them with."""
    angles = np.arange(rows)[:, None] / np.power(10_000, 2 * np.arange(size // 2) / size)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def write_encoder(
    out: Path | str,
    model: RoFormer,
    config: RoFormerConfig,
    *,
    dtype: str = "float32",
    settings: Mapping[str, Any] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> str:
    """Writes the model for transformers into the new folder `out`, whole or not at all,
    and returns the name of its class.

    RoFormerForMaskedLM or BertForMaskedLM load it, and RoFormerModel or BertModel, where there is no head only these.
    `settings` are further ones of config.json; `write_more` adds files to the folder. Raises DataError for a model that
    none of them computes or that is not of this config, and where `out` exists and is not empty. A BERT's linear pooler
    is written where the settings say so by `pooler_activation`; transformers' BertModel puts tanh after it, even so.
    """
    if dtype not in FLOATS:
        raise ValueError(f"dtype is {dtype!r}: it must be {', '.join(FLOATS)}")
    out = absolute(path_of(out, "the folder"))
    check_new(out)
    model, config, kind = as_published(model, config, out)
    if kind == "bert" and config.pooler == "linear" and "pooler_activation" not in (settings or {}):
        raise DataError(
            f"{out}: not written, since transformers has no such BERT: the pooler is linear, and BERT's ends in tanh; "
            "leave it out (pooler none)"
        )
    names = Names(prefix=f"{kind}." if config.head else "")
    tensors, table = dict(encoder_tensors(model, names)), f"{names.prefix}encoder.embed_positions.weight"
    if kind == "roformer":
        config = replace(config, max_positions=max(config.max_positions, POSITIONS))
        tensors[table] = _sinusoids(config.max_positions, config.head_size)
    about = {
        "architectures": [name := CLASSES[kind] + ("ForMaskedLM" if config.head else "Model")],
        "model_type": kind,
        **{name: getattr(config, ours) for name, ours in (SIZES | SETTINGS).items()},
        **({"embedding_size": config.embedding_width, "rotary_value": False} if kind == "roformer" else {}),
        "hidden_act": GELU[config.gelu],
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        OWN_KEY: {"pooler": config.pooler},
        **(settings or {}),
    }
    with atomic_write(out) as temporary:
        temporary.mkdir()
        # Rounded sinusoids would spoil the far positions of a model that is loaded in float32 again.
        write_safetensors(temporary / "model.safetensors", tensors.items(), dtype, exact=(table,))
        write_json(temporary / "config.json", about)
        if write_more is not None:
            write_more(temporary)
    return name


def as_published(
    model: RoFormer, config: RoFormerConfig, out: Path, whose: str = "transformers"
) -> tuple[RoFormer, RoFormerConfig, Kind]:
    """The same function as the published models have it, in NumPy: rotary and interleaved, or with a learned table, and
    which.

    Positions that are computed are written for `max_positions`. Raises DataError, naming `out` and `whose` class there
    is not.
    """
    shapes, wanted = (jax.tree.map(jnp.shape, x) for x in (model, hollow(partial(init, config))))
    if shapes != wanted:
        raise DataError(f"{out}: not written, since the model is not of this config: its arrays have other shapes")
    model = jax.tree.map(np.asarray, model)
    c, e = config, model.embeddings
    rotary = c.positions == "rotary"
    wrong = {
        f"norm is {c.norm}: there every norm is post": c.norm != "post",
        "positions are buckets, which there only T5 has": c.positions == "buckets",
        f"theta is {c.theta}: there it is {SINUSOIDAL}": rotary and c.theta != SINUSOIDAL,
        f"extension is {c.extension.method}, and there is none; write the config without it": c.extension.method
        != "none",
        f"positions are {c.positions}, and embeddings narrower than the model go with rotary ones there": not rotary
        and e.project is not None,
    }
    if reason := next((reason for reason, holds in wrong.items() if holds), None):
        raise DataError(f"{out}: not written, since {whose} has no such RoFormer or BERT: {reason}")
    if rotary:
        c = replace(c, layout="interleaved")
        if config.layout == "half":
            turn = partial(jax.tree.map, lambda x: to_interleaved(x, c.heads))
            query, key = turn(model.blocks.query), turn(model.blocks.key)
            model = replace(model, blocks=replace(model.blocks, query=query, key=key))
        return model, c, "roformer"
    return replace(model, embeddings=replace(e, position=_table(e, c))), replace(c, positions="learned"), "bert"


def _table(embeddings: Embeddings, c: RoFormerConfig) -> jax.Array:
    """[P, E]: what is added to the embeddings at each position."""
    match c.positions:
        case "learned":
            return position_of(embeddings)
        case "none":
            return jnp.zeros((c.max_positions, c.width), jnp.float32)
    theta = jnp.asarray(position_of(embeddings)) if c.positions == "trainable" else frequencies(c.width, c.theta)
    return SINUSOID * sinusoidal(jnp.arange(c.max_positions), theta)
