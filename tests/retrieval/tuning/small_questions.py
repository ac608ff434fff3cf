"""Two files of groups in the characters of tests.retrieval.vectors.test_encoding, a config that writes, and batches."""

from dataclasses import replace

import jax
import numpy as np

from retrieval.tuning.groups import Group
from retrieval.tuning.question_batches import QuestionBatches
from retrieval.tuning.questions import Questions, Stream, tokenize
from tests.retrieval.vectors.test_encoding import TOKENIZER
from tests.rope.encoder.random_encoder import ROFORMER
from training.loop import LoopConfig
from training.mesh import MeshConfig, make_mesh

CONFIG = replace(ROFORMER, pooler="linear", types=2)
STILL = replace(CONFIG, dropout=0.0, attention_dropout=0.0)
MAX_LENGTH = 24

FILES = [
    [
        Group("a, line 1", ("今天气很好", "今天很好吧", "天气好")),
        Group("a, line 2", ("我们去公园", "去公园散步吧")),
        Group("a, line 3", ("你呢？", "你好")),
        Group("a, line 4", ("散步", "我们散步去吧，很好")),
        Group("a, line 5", ("公园很好，我们去吧？我们去散步", "去吧")),
    ],
    [
        Group("b, line 1", ("天气呢？", "今天天气")),
        Group("b, line 2", ("我们", "你我", "我你我")),
        Group("b, line 3", ("今天，我们", "今天去")),
    ],
]


def first_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def questions(words: bool = True) -> Questions:
    return tokenize(FILES, TOKENIZER, MAX_LENGTH, words=words)


def batches(
    loop: LoopConfig,
    mesh: jax.sharding.Mesh | None = None,
    corrupted: float = 0.5,
    teacher: np.ndarray | None = None,
) -> QuestionBatches:
    stream = Stream(questions(), (), corrupted, loop.seed)
    return QuestionBatches(stream, loop, 20, MAX_LENGTH, TOKENIZER, mesh or first_device(), teacher)
