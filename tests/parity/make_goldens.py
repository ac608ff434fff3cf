"""What the reference implementations say, written to tests/goldens for tests that must not need them.

python -m tests.parity.make_goldens   (needs `pip install .[parity]`)
"""

import json
import tempfile
from pathlib import Path

import jax
import jieba
import numpy as np
import torch
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer
from transformers.models.mt5.modeling_mt5 import MT5Attention

from pegasus_zh.t5.huggingface import huggingface_tensors
from pegasus_zh.text.documents import CORPUS, read_documents
from pegasus_zh.text.vocabulary import train_pegasus_vocabulary
from tests.parity.reference import reference_model, reference_outputs
from tests.parity.scores import reference_scores
from tests.pegasus_zh.t5.random_model import SHAPE, TINY, random_model, random_pairs, rows

GOLDENS = Path(__file__).parents[1] / "goldens"
BUCKETS = [(32, 128), (32, 20), (8, 16), (64, 512)]  # (buckets, max_distance)


def model_golden() -> dict[str, np.ndarray]:
    """A tiny model, six padded rows, and torch's logits, loss and gradients (by their names in transformers)."""
    model = random_model(TINY)
    batch = rows([[pair] for pair in random_pairs(6, TINY)], *SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        reference = reference_model(model, TINY, Path(folder) / "model")
    logits, loss = reference_outputs(reference, batch)
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    weights = {jax.tree_util.keystr(path, simple=True): x for path, x in jax.tree.leaves_with_path(model)}
    return (
        {f"weight {name}": np.asarray(x) for name, x in weights.items()}
        | {f"batch {name}": x for name, x in batch.items()}
        | {f"gradient {name}": gradients[name] for name, _ in huggingface_tensors(model)}
        | {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    )


def bucket_golden() -> dict[str, np.ndarray]:
    """The buckets of the offsets -300..300 (key position - query position)."""
    offsets = torch.arange(-300, 301)
    bucket = MT5Attention._relative_position_bucket
    return {
        f"{direction} {buckets} {distance}": bucket(offsets, direction == "both", buckets, distance).numpy()
        for direction in ("both", "left")
        for buckets, distance in BUCKETS
    }


def token_golden() -> dict[str, list]:
    """A vocabulary from the built-in corpus, and the ids of lines.txt by jieba and BERT's own tokenizers."""
    vocabulary = train_pegasus_vocabulary(read_documents((str(CORPUS / "train.jsonl"),)), 3000)
    lines = (GOLDENS / "lines.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ids = {token: i for i, token in enumerate(vocabulary)}
    basic, wordpiece = BasicTokenizer(do_lower_case=True), WordpieceTokenizer(ids, "[UNK]", 200)

    def encode(text: str) -> list[int]:
        tokens = []
        for word in jieba.cut(basic._run_strip_accents(text.lower()), HMM=False):
            pieces = (piece for part in basic.tokenize(word) for piece in wordpiece.tokenize(part))
            tokens += [word] if word in ids else pieces
        return [ids[token] for token in tokens]

    return {"vocabulary": vocabulary, "ids": [encode(line) for line in lines]}


def score_golden() -> list[dict[str, float]]:
    """Rouge and BLEU of the pairs of summaries.jsonl by the packages `rouge` and nltk."""
    pairs = map(json.loads, (GOLDENS / "summaries.jsonl").read_text(encoding="utf-8").splitlines())
    return [reference_scores(pair["reference"], pair["written"]) for pair in pairs]


if __name__ == "__main__":
    np.savez_compressed(GOLDENS / "mt5.npz", **model_golden())
    np.savez_compressed(GOLDENS / "buckets.npz", **bucket_golden())
    text = json.dumps(token_golden(), ensure_ascii=False, separators=(",", ":"))
    (GOLDENS / "tokens.json").write_text(text + "\n", encoding="utf-8")
    text = json.dumps(score_golden(), indent=0)
    (GOLDENS / "scores.json").write_text(text + "\n", encoding="utf-8")
