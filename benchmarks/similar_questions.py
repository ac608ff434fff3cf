"""Draws of similar questions: 100 a question by ours, beside the same model in torch with a cache of its own.

    python -m benchmarks.similar_questions [--questions 1 16] [--preset roformer-char-small] [--dtype bfloat16]

Random weights, scaled so that a nucleus of 0.95 has some dozens of tokens; prompts of 20 ids; every draw is of --length
ids, the end being suppressed, so that both sides do the same. torch's side is a loop written by hand over the modules
of transformers' RoFormer: UniLM's mask, the prompt computed once for all of its draws and its keys and values expanded,
a preallocated cache, scaled_dot_product_attention, the nucleus by torch.sort, and a draw by one uniform number. Greedy
texts of the two must be equal. Needs the `parity` extra. benchmarks/harness.py says how it is timed.
"""

import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
import tyro

from benchmarks.harness import Clock, in_turn, measure
from benchmarks.side import Run
from rope.decoding.search import Marks, Search
from rope.decoding.write import write
from rope.encoder.huggingface import write_encoder
from rope.encoder.prefix_decoder import PrefixDecoder
from rope.encoder.roformer import PRESETS, RoFormer, RoFormerConfig, init
from training.files.weights import empty
from training.flags import FLAT
from training.partition import Dtype

PROMPT, START, END, TOP_P = 20, 101, 102, 0.95


@dataclass(frozen=True, kw_only=True)
class Config:
    questions: tuple[int, ...] = (1, 16)
    """Of a turn, each measured for itself."""
    draws: int = 100
    length: int = 16
    """Ids of a draw."""
    preset: str = "roformer-char-small"
    batch_size: int = 4
    """Questions that ours draws for together."""
    torch_batches: tuple[int, ...] = (1, 4)
    """The same of torch, each a side."""
    dtype: Dtype = "float32"
    """Of the computation; of bfloat16 torch's weights too."""
    clock: Annotated[Clock, FLAT] = field(default_factory=Clock)


class Written(NamedTuple):
    greedy: np.ndarray  # int32 [questions, length]
    draws: np.ndarray  # int32 [questions * draws, length]


def random_model(config: Config) -> tuple[RoFormer, RoFormerConfig]:
    """The same in all processes, of NumPy arrays."""
    shape, random = replace(PRESETS[config.preset], pooler="linear"), np.random.default_rng(0)

    def draw(path, x: np.ndarray) -> np.ndarray:
        name, noise = jax.tree_util.keystr(path), random.standard_normal(x.shape, np.float32)
        if "scale" in name or "bias" in name:
            return np.full(x.shape, "scale" in name, np.float32)
        return np.float32(0.25 if "word" in name else 0.05) * noise

    return jax.tree.map_with_path(draw, empty(partial(init, shape))), shape


def prompts(config: Config, questions: int) -> np.ndarray:
    ids = np.random.default_rng(1).integers(106, PRESETS[config.preset].vocabulary, (questions, PROMPT))
    ids[:, 0], ids[:, -1] = START, END
    return ids.astype(np.int32)


def ours(config: Config, questions: int) -> Run:
    model, shape = random_model(config)
    decoder = PrefixDecoder(replace(shape, dtype=config.dtype))
    placed, marks = jax.device_put(model), Marks(start=START, end=END)

    def written(search: Search, answers: int) -> np.ndarray:
        # The end stays out of reach until there are more ids than are written.
        search = replace(search, min_length=config.length + 1, answers=answers)
        found, rows = [], min(config.batch_size, questions)
        for first in range(0, questions, rows):
            ids = np.pad(prompts(config, questions)[first : first + rows], ((0, 0), (0, 32 - PROMPT)))  # its bucket
            seeds = np.arange(first * answers, (first + rows) * answers, dtype=np.uint32)
            of_batch = partial(write, decoder=decoder, search=search, marks=marks, length=config.length)
            found.append(np.asarray(of_batch(placed, ids, seeds)[0]))
        return np.concatenate(found)

    greedy = written(Search(), 1)
    return lambda: Written(greedy, written(Search(temperature=1.0, top_p=TOP_P), config.draws))


def theirs(config: Config, questions: int, batch: int) -> Run:
    import torch

    jax.config.update("jax_platforms", "cpu")  # it makes the weights alone
    reference = TorchWriter(config)
    ids = torch.from_numpy(prompts(config, questions)).long().to(reference.device)
    chunks = ids.split(batch)

    def written(draws: int, greedy: bool) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([reference.write(chunk, draws, greedy) for chunk in chunks]).int().cpu().numpy()

    greedy = written(1, True)
    return lambda: Written(greedy, written(config.draws, False))


class TorchWriter:
    """transformers' modules, and the loop over them."""

    def __init__(self, config: Config):
        import torch
        from transformers import RoFormerForMaskedLM

        self.torch, self.length = torch, config.length
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model, shape = random_model(config)
        with tempfile.TemporaryDirectory() as folder:
            write_encoder(Path(folder) / "model", model, shape)
            loaded = RoFormerForMaskedLM.from_pretrained(Path(folder) / "model", dtype=getattr(torch, config.dtype))
        self.model, self.shape = loaded.eval().to(self.device), shape

    def write(self, prompt, draws: int, greedy: bool):
        """Ids [B, S] -> [B draws, length]."""
        torch, shape, (rows, begin) = self.torch, self.shape, prompt.shape
        heads, size, room = shape.heads, shape.head_size, begin + self.length
        base = self.model.roformer
        self.cache = []
        turn = base.encoder.embed_positions((1, room))[None, None].to(base.dtype)
        hidden = base.embeddings(prompt)
        for layer in base.encoder.layer:
            query, key, value = self.heads(layer, hidden, turn[:, :, :begin])
            hidden = self.rest(layer, hidden, self.attend(query, key, value))
            kept = [torch.empty(rows * draws, heads, room, size, dtype=x.dtype, device=x.device) for x in (key, value)]
            for whole, x in zip(kept, (key, value), strict=True):
                whole[:, :, :begin] = x.repeat_interleave(draws, 0)
            self.cache.append(kept)
        logits = self.model.cls(hidden[:, -1]).float().repeat_interleave(draws, 0)
        written = torch.empty(rows * draws, self.length, dtype=torch.long, device=prompt.device)
        for t in range(self.length):
            written[:, t] = self.choose(logits, greedy)
            if t + 1 < self.length:
                logits = self.step(written[:, t : t + 1], begin + t, turn)
        return written

    def step(self, tokens, place: int, turn):
        """The logits [R, V] after these tokens [R, 1]."""
        base = self.model.roformer
        hidden = base.embeddings(tokens, self.torch.ones_like(tokens))
        for layer, (keys, values) in zip(base.encoder.layer, self.cache, strict=True):
            query, key, value = self.heads(layer, hidden, turn[:, :, place : place + 1])
            keys[:, :, place : place + 1], values[:, :, place : place + 1] = key, value
            hidden = self.rest(layer, hidden, self.attend(query, keys[:, :, : place + 1], values[:, :, : place + 1]))
        return self.model.cls(hidden[:, 0]).float()

    def choose(self, logits, greedy: bool):
        torch = self.torch
        logits[:, [0, END]] = -1e9
        if greedy:
            return logits.argmax(-1)
        ranked, tokens = torch.sort(logits, descending=True, dim=-1)
        reached = torch.softmax(ranked, -1).cumsum(-1)
        last = (reached < TOP_P).sum(-1, keepdim=True).clamp(max=reached.shape[1] - 1)  # of the nucleus
        at = torch.rand(len(logits), 1, device=logits.device) * reached.gather(1, last)
        return tokens.gather(1, torch.searchsorted(reached, at).clamp(max=reached.shape[1] - 1))[:, 0]

    def heads(self, layer, hidden, turn):
        own = layer.attention.self
        cut = (*hidden.shape[:2], self.shape.heads, self.shape.head_size)
        query, key, value = (f(hidden).view(cut).transpose(1, 2) for f in (own.query, own.key, own.value))
        return *own.apply_rotary_position_embeddings(turn, query, key), value

    def attend(self, query, key, value):
        return self.torch.nn.functional.scaled_dot_product_attention(query, key, value)

    def rest(self, layer, hidden, mixed):
        x = layer.attention.output(mixed.transpose(1, 2).flatten(2), hidden)
        return layer.output(layer.intermediate(x), x)


def same_texts(ours: Written, theirs: Written) -> str:
    """Raises AssertionError where it is not the same model."""
    differ = int(np.sum(np.any(ours.greedy != theirs.greedy, 1)))
    assert 2 * differ < len(ours.greedy) + 1, f"{differ} of {len(ours.greedy)} greedy texts differ"
    first = [len(np.unique(x.draws[:, :2], axis=0)) for x in (ours, theirs)]
    return f"{differ} of {len(ours.greedy)} greedy texts differ; different beginnings of two ids {first[0]}, {first[1]}"


def main() -> None:
    config = tyro.cli(Config)

    def beside(questions: int) -> None:
        batches = [size for size in config.torch_batches if size <= questions]
        measure(
            f"{config.draws} draws of {config.length} ids for {questions} question{'s' * (questions > 1)}, "
            f"{config.preset}, top-p {TOP_P}, {config.dtype}",
            {"ours": partial(ours, config, questions)}
            | {f"torch, batches of {size}": partial(theirs, config, questions, size) for size in batches},
            config.clock,
            work=questions,
            unit="question",
            check=same_texts,
        )

    in_turn(*(partial(beside, count) for count in config.questions))


if __name__ == "__main__":
    main()
