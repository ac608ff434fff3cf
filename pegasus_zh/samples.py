"""What a pretrained model has come to, by held-out documents: what it writes for them,
and whether it finds a document's own pseudo-summary among those of others."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pegasus_zh.rows.packed_rows import PackedRows
from pegasus_zh.t5 import mt5
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.text.tokenizers import Tokenizer
from pegasus_zh.writing import Writing, generate
from rope.decoding.search import Search
from rope.layers.cross_entropy import of_labels
from training.files.atomic import write_bytes
from training.partition import parts_of, replicate, spec
from training.telling import tell

AMONG = 8  # pseudo-summaries that a document's own is to be found among
DOCUMENTS = 64  # of which it is asked, at most
LONGEST = 128  # ids of a sample
REPEATED = 3  # ids in a row that a sample has but once: small models repeat themselves without end
_SCORES = 1 << 25  # logits at once on a device: 128 MiB

Pair = dict[str, np.ndarray]  # source, target and target_inputs of one document


def pairs_of(rows: PackedRows) -> Iterator[Pair]:
    """The documents of packed rows, one by one, in order."""
    for row in range(len(rows)):
        batch = {name: x[0] for name, x in rows.batch([row]).items()}
        for number in range(1, int(batch["source_segments"].max()) + 1):
            source, target = (batch[f"{side}_segments"] == number for side in ("source", "target"))
            yield {
                "source": batch["source"][source],
                "target": batch["target"][target],
                "target_inputs": batch["target_inputs"][target],
            }


def finding(config: mt5.MT5Config, heldout: PackedRows) -> Callable[[mt5.MT5, int], dict[str, float]]:
    """(model, step) -> {"found_among_8": the share of held-out documents of which, given the source, the own
    pseudo-summary is the most likely by token, among it and those of the seven documents after it}.

    Of the first DOCUMENTS ones, under the mesh that is set. Chance is 1 / 8; of fewer than eight documents nothing is
    said.
    """
    pairs = list(islice(pairs_of(heldout), DOCUMENTS))
    shape = {name: -(-max(len(pair[name]) for pair in pairs) // 8) * 8 for name in pairs[0]}
    padded = {name: _padded([pair[name] for pair in pairs], length) for name, length in shape.items()}
    here = {side: _padded([np.ones_like(pair[side]) for pair in pairs], shape[side]) for side in ("source", "target")}

    def found(model: mt5.MT5, step: int) -> dict[str, float]:
        parts, best = parts_of("batch"), []
        rows = parts * max(1, min(len(pairs) // parts, _SCORES // (shape["target"] * config.vocabulary)))
        for first in range(0, len(pairs), rows):
            own = (first + np.arange(rows)) % len(pairs)
            others = (own + np.arange(AMONG)[:, None]) % len(pairs)  # [A, B]
            sources = (jax.device_put(x[own], spec("batch", None)) for x in (padded["source"], here["source"]))
            given = (padded["target"], padded["target_inputs"], here["target"])
            targets = (jax.device_put(x[others], spec(None, "batch", None)) for x in given)
            best += np.asarray(_likelihoods(model, *sources, *targets, config=config)).argmax(0).tolist()
        return {f"found_among_{AMONG}": float(np.mean(np.array(best[: len(pairs)]) == 0))}

    return found if len(pairs) >= AMONG else lambda model, step: {}


def _padded(rows: list[np.ndarray], length: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, length - len(row))) for row in rows]).astype(np.int32)


@partial(jax.jit, static_argnames="config")
def _likelihoods(
    model: mt5.MT5,
    source: jax.Array,
    segments: jax.Array,
    targets: jax.Array,
    inputs: jax.Array,
    target_segments: jax.Array,
    *,
    config: mt5.MT5Config,
) -> jax.Array:
    """The mean log-likelihood by token [A, B] of targets [A, B, T], given sources [B, S]."""
    encoded = mt5.encode(model, source, segments, config)

    def of_one(target: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        labels, inputs, here = target
        scores = mt5.logits(model, mt5.decode(model, inputs, here, encoded, segments, config), config)
        log_p = of_labels(scores, labels) - jax.nn.logsumexp(scores, -1)
        return jnp.sum(jnp.where(here > 0, log_p, 0.0), -1) / jnp.sum(here, -1)

    return replicate(jax.lax.map(of_one, (targets, inputs, target_segments)))


def show_samples(
    model: mt5.MT5,
    config: mt5.MT5Config,
    tokenizer: Tokenizer,
    heldout: PackedRows,
    count: int,
    path: Path,
) -> None:
    """Shows what the model writes for the first held-out sources beside their pseudo-summaries; kept in `path`.

    Greedily, no three ids in a row twice.
    """
    pairs = list(islice(pairs_of(heldout), count))
    sources = [pair["source"].tolist() for pair in pairs]
    search = Search(no_repeat_ngram_size=REPEATED)
    writing = Writing(max_source=max(map(len, sources)), max_target=LONGEST, batch_size=len(sources), search=search)
    written = generate(model, MT5Decoder(config), tokenizer, sources, writing)
    text = ""
    for pair, source, output in zip(pairs, sources, written, strict=True):
        text += f"source     {tokenizer.decode(source)[:120]}…\n"
        text += f"reference  {tokenizer.decode(pair['target'].tolist())}\nwritten    {output}\n\n"
    tell("\n" + text.rstrip())
    if jax.process_index() == 0:
        write_bytes(path, text.encode())
