"""RoFormer-Sim's training step, both losses of one forward pass, beside the same in torch with transformers' RoFormer.

    python -m benchmarks.roformer_sim [--width 384] [--layers 6] [--pairs 48]

Needs the `parity` extra (`make bench` sets it up). Both get the same pairs as ids, and AdamW of float32. Torch's rows
are padded to the longest of a batch, as the published training has them, and its head sees the positions that are
predicted alone; ours lie packed. transformers has no fused attention for RoFormer. benchmarks/harness.py says how it
is timed.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Annotated

import jax
import numpy as np
import tyro

from benchmarks.embeddings import read
from benchmarks.harness import Clock, measure
from benchmarks.side import Run
from pegasus_zh.text.documents import CORPUS
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from retrieval.tuning.groups import Group
from retrieval.tuning.question_batches import QuestionBatches
from retrieval.tuning.questions import Questions, Stream, tokenize
from retrieval.tuning.roformer_sim import JointRecipe
from rope.encoder.roformer import RoFormerConfig
from training.flags import FLAT
from training.loop import LoopConfig, to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh
from training.step import compile_step


@dataclass(frozen=True, kw_only=True)
class Config:
    texts: str = str(CORPUS / "train.jsonl")
    """Short texts, one a line, of which two in a row make a pair; of the built-in corpus its sentences."""
    count: int = 4000
    """Of the texts."""
    width: int = 384
    layers: int = 6
    vocabulary: int = 12_000
    """Rows of the embedding, whatever the texts need."""
    pairs: int = 48
    """Of a step, each in both directions."""
    dropout: float = 0.2
    clock: Annotated[Clock, FLAT] = field(default_factory=partial(Clock, repeats=7))

    @property
    def model(self) -> RoFormerConfig:
        heads = self.width // 64
        shape = {"vocabulary": self.vocabulary, "width": self.width, "feed_forward": 4 * self.width, "heads": heads}
        return RoFormerConfig(**shape, layers=self.layers, pooler="linear", dropout=self.dropout, attention_dropout=0.1)


def questions_of(config: Config) -> tuple[Questions, PegasusTokenizer]:
    texts = read(config)
    tokenizer = PegasusTokenizer([*SPECIALS, *sorted({c for text in texts for c in text.lower() if not c.isspace()})])
    pairs = zip(texts[::2], texts[1::2], strict=False)
    return tokenize([[Group("", pair) for pair in pairs]], tokenizer, 128, words=True), tokenizer


def batches_of(config: Config) -> QuestionBatches:
    questions, tokenizer = questions_of(config)
    loop = LoopConfig(batch_size=config.pairs)
    stream = Stream(questions, (), corrupted=0.5, seed=0)
    return QuestionBatches(stream, loop, 40, 128, tokenizer, make_mesh(MeshConfig()))


def ours(config: Config) -> Run:
    made, mesh = batches_of(config), make_mesh(MeshConfig())
    recipe = JointRecipe(loop=LoopConfig(steps=1000, batch_size=config.pairs))
    program = recipe.program(config.model, made.form)
    batches = made(0, WHOLE)
    with jax.set_mesh(mesh):
        state = jax.jit(program.init)()
        compiled = compile_step(program.step, state, to_mesh(next(batches), mesh, 1))

    def run() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, sums = compiled(state, to_mesh(next(batches), mesh, 1))
            return float(sums["loss"][0])

    return run


def theirs(config: Config) -> Run:
    import torch
    from torch.nn.functional import cross_entropy, normalize
    from transformers import RoFormerConfig as TorchConfig
    from transformers import RoFormerForMaskedLM

    c, made = config.model, batches_of(config)
    torch.manual_seed(0)
    shape = TorchConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.feed_forward,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=0.1,
    )
    model = RoFormerForMaskedLM._from_config(shape, attn_implementation="eager").train()
    pooler = torch.nn.Linear(c.width, c.width)
    parameters = [*model.parameters(), *pooler.parameters()]
    adamw, numbers = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.01, fused=True), count()

    def run() -> float:
        sources, targets = made.sequences(next(numbers))
        rows = [torch.from_numpy(np.concatenate(pair)).long() for pair in zip(sources, targets, strict=True)]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([[len(row)] for row in rows])
        begins = torch.tensor([[len(source)] for source in sources])
        places = torch.arange(ids.shape[1])[None]
        real, types = places < lengths, (places >= begins).long()
        order = types.cumsum(1)
        seen = (order[:, None, :] <= order[:, :, None]) & real[:, None, :]
        mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9)[:, None]
        hidden = model.roformer(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        written = (types[:, 1:] == 1) & real[:, 1:]
        writing = cross_entropy(model.cls(hidden[:, :-1][written]), ids[:, 1:][written])
        unit = normalize(pooler(hidden[:, 0]))
        scores = (20 * unit @ unit.T).masked_fill(torch.eye(len(unit), dtype=torch.bool), -1e12)
        loss = writing + cross_entropy(scores, torch.arange(len(unit)) ^ 1)
        loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return loss.item()

    return run


def main() -> None:
    config = tyro.cli(Config)
    made = batches_of(config)
    lengths = [len(s) + len(t) for s, t in zip(*made.sequences(0), strict=True)]
    measure(
        f"a step of {config.pairs} pairs both ways, {config.layers} layers of {config.width}; rows of a first batch: "
        f"{np.mean(lengths):.0f} ids, at most {max(lengths)}; packed {made.form.rows} x {made.form.length}",
        {"ours": partial(ours, config), "torch": partial(theirs, config)},
        config.clock,
        unit="step",
    )


if __name__ == "__main__":
    main()
