"""The loss over [u, v, |u - v|] and its gradient against torch's, in float64, from transformers' RoFormer with a linear
pooler: to 1e-5."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import torch
import transformers

from retrieval.tuning.batches import Batches
from retrieval.tuning.labels import members
from retrieval.tuning.softmax import begin, loss
from rope.encoder.huggingface import Names, encoder_tensors, write_encoder
from tests.rope.encoder.random_encoder import ROFORMER, random_encoder
from training.loop import LoopConfig
from training.mesh import WHOLE, MeshConfig, make_mesh

GROUPS = (("0", "1"), ("contradiction", "entailment", "neutral"))
CONFIG = replace(ROFORMER, dropout=0.0, pooler="linear", head=False)


def test_loss_and_gradients(tmp_path):
    random = np.random.default_rng(0)
    ids = [[random.integers(1, CONFIG.vocabulary, random.integers(3, 12)).tolist() for _ in "ab"] for _ in range(8)]
    labels = np.array([0, 2, 1, 3, 1, 4, 0, 3], np.float32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    batches = Batches(ids, labels, LoopConfig(steps=1, batch_size=8), 16, 1, 0, mesh, members(GROUPS, labels))
    batch = next(batches(0, WHOLE))
    model = begin(random_encoder(CONFIG), CONFIG, GROUPS, 0)
    model = model.replace(kernel=random.standard_normal(model.kernel.shape).astype(np.float32))

    def mean(model):
        sums = loss(model, batch, None, config=CONFIG, groups=GROUPS, pooling="pooler")
        return sums["loss"][0] / sums["loss"][1]

    value, found = jax.jit(jax.value_and_grad(mean))(model)

    write_encoder(tmp_path / "model", model.encoder, CONFIG)
    encoder = transformers.RoFormerModel.from_pretrained(tmp_path / "model").eval().double()
    as_parameter = lambda x: torch.nn.Parameter(torch.from_numpy(np.array(x, np.float64)))  # noqa: E731
    weight, bias, kernel = map(as_parameter, (model.encoder.pooler.kernel.T, model.encoder.pooler.bias, model.kernel))

    def vectors(side: int) -> torch.Tensor:
        first = [encoder(torch.tensor([pair[side]])).last_hidden_state[:, 0] for pair in ids]
        return torch.nn.functional.linear(torch.cat(first), weight, bias)

    u, v, wanted = vectors(0), vectors(1), torch.from_numpy(labels).long()
    logits = torch.cat([u, v, (u - v).abs()], 1) @ kernel
    own = torch.tensor([[(column < 2) == (label < 2) for column in range(5)] for label in wanted])
    total = torch.nn.functional.cross_entropy(logits.masked_fill(~own, -torch.inf), wanted)
    total.backward()

    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    theirs = {name: x.grad.numpy() for name, x in encoder.named_parameters() if x.grad is not None}
    theirs |= {"pooler.dense.weight": weight.grad.numpy(), "pooler.dense.bias": bias.grad.numpy()}
    ours = dict(encoder_tensors(found.encoder, Names()))
    assert ours.keys() == theirs.keys()
    close = partial(np.testing.assert_allclose, rtol=0)
    for name, x in theirs.items():
        close(ours[name], x, atol=1e-5 * np.abs(x).max(), err_msg=name)
    close(found.kernel, kernel.grad, atol=1e-5 * np.abs(kernel.grad.numpy()).max())
