"""Stages 1 and 2 of RoFormer-Sim against the same written with torch and transformers' RoFormer, padded, row by row."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy, linear, normalize

from retrieval.tuning.contrastive import alike, cached_gradients, distillation
from retrieval.tuning.joint_program import vectors_and_writing
from retrieval.tuning.question_batches import QuestionBatches
from retrieval.tuning.questions import Stream, tokenize
from rope.encoder.huggingface import Names, encoder_tensors, write_encoder
from tests.retrieval.tuning.small_questions import FILES
from tests.retrieval.vectors.test_encoding import TOKENIZER, source
from tests.rope.encoder.random_encoder import ROFORMER
from training.loop import LoopConfig, to_mesh
from training.mesh import WHOLE, MeshConfig, make_mesh

CONFIG = replace(ROFORMER, dropout=0.0, attention_dropout=0.0, pooler="linear", types=2)
MAX_LENGTH = 24


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Our encoder, a batch, transformers' model with that encoder's weights, and its pooler."""
    encoder, folder = source(CONFIG), tmp_path_factory.mktemp("parity") / "model"
    write_encoder(folder, encoder.model, encoder.config)
    theirs = transformers.RoFormerForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    pooler = [
        torch.tensor(np.asarray(x), requires_grad=True)
        for x in (encoder.model.pooler.kernel, encoder.model.pooler.bias)
    ]
    questions = tokenize(FILES, TOKENIZER, MAX_LENGTH, words=True)
    loop = LoopConfig(batch_size=4, accumulate=1, seed=5)
    teacher = np.random.default_rng(0).standard_normal((len(questions.texts), 7)).astype(np.float32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    stream = Stream(questions, (), corrupted=0.5, seed=5)
    batch = QuestionBatches(stream, loop, 1, MAX_LENGTH, TOKENIZER, mesh, teacher).batch(0, WHOLE)
    return encoder, batch, theirs, pooler, mesh


def by_torch(batch, theirs, pooler, distils: bool):
    """(loss, logits of the rows)."""
    rows = []  # in the order of the examples: each text's own sequence, cut out of the packed rows
    texts = -(-batch["ids"].shape[1] // 4)
    for place in batch["places"].reshape(-1):
        row, number = divmod(int(place), texts)
        here = batch["segments"][row] == number + 1
        rows.append((torch.tensor(batch["ids"][row][here]).long(), torch.tensor(batch["types"][row][here]).long()))
    length = max(len(ids) for ids, _ in rows)
    ids, types = (torch.stack([torch.nn.functional.pad(x[i], (0, length - len(x[i]))) for x in rows]) for i in (0, 1))
    real = torch.stack([torch.arange(length) < len(x) for x, _ in rows])
    order = types.cumsum(1)
    mask = (order[:, None, :] <= order[:, :, None]) & real[:, None, :]
    scores = torch.zeros(mask.shape).masked_fill(~mask, -1e9)[:, None]
    out = theirs(input_ids=ids, token_type_ids=types, attention_mask=scores, output_hidden_states=True)
    written = (types[:, 1:] == 1) & real[:, 1:]
    writing = cross_entropy(out.logits[:, :-1][written], ids[:, 1:][written])
    unit = normalize(linear(out.hidden_states[-1][:, 0], pooler[0].T, pooler[1]))
    cosines = unit @ unit.T
    if distils:
        wanted = normalize(torch.tensor(batch["teacher"]).reshape(len(unit), -1))
        return writing + 100 * (cosines - wanted @ wanted.T).square().mean()
    numbers = torch.tensor(batch["texts"]).reshape(-1)
    target = torch.arange(len(unit)) ^ 1
    copies = (numbers[None] == numbers[:, None]) | (numbers[None] == numbers[target][:, None])
    copies[torch.arange(len(unit)), target] = False
    scores = (20 * cosines).masked_fill(copies | torch.eye(len(unit), dtype=torch.bool), -1e12)
    return writing + cross_entropy(scores, target)


@pytest.mark.parametrize("distils", [False, True], ids=["stage 1", "stage 2"])
def test_loss_and_gradient_are_those_of_torch(case, distils: bool) -> None:
    encoder, batch, theirs, pooler, mesh = case
    wanted = by_torch(batch, theirs, pooler, distils)
    theirs.zero_grad()
    for x in pooler:
        x.grad = None
    wanted.backward()
    embed = lambda model, rows, key: vectors_and_writing(model, rows, key, encoder.config)  # noqa: E731
    run = cached_gradients(embed, distillation if distils else alike)
    with jax.set_mesh(mesh):
        arrays = jax.tree.map(lambda x: jax.device_put(x, jax.NamedSharding(mesh, jax.P())), encoder.model)
        # `split`: no key, no dropout
        sums, found = jax.jit(run)(arrays, to_mesh(batch, mesh, 1), jax.random.split(jax.random.key(0), 1))
    assert float(sums["loss"][0]) == pytest.approx(wanted.item(), rel=1e-5)
    prefix = f"{theirs.base_model_prefix}."
    named = dict(theirs.named_parameters())
    found = jax.tree.map(np.asarray, found)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(found))
    compared = 0
    for name, ours in encoder_tensors(found, Names(prefix=prefix)):
        if name in named and named[name].grad is not None:
            np.testing.assert_allclose(ours, named[name].grad.numpy(), atol=1e-5 * largest, err_msg=name)
            compared += 1
    assert compared >= len([x for x in named.values() if x.grad is not None]) - 1  # a tied head counts once
    for ours, x in zip((found.pooler.kernel, found.pooler.bias), pooler, strict=True):
        np.testing.assert_allclose(ours, x.grad.numpy(), atol=1e-5 * largest)
