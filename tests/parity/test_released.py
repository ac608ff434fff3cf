"""RoFormer-Sim and SimBERT in the forms in which they are released, with random weights: vectors as torch's, and both
forms out again, for transformers and for TensorFlow's own reader."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow")

from retrieval import Embedder
from retrieval.export import ExportEncoderConfig, export_encoder
from retrieval.vectors.source import load_sentence_encoder
from tests.parity.test_tensorflow_encoders import published, write_tensorflow
from tests.retrieval.vectors.test_encoding import TEXTS, VOCABULARY
from training.files.errors import DataError

SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 20, "max_position_embeddings": 300, "hidden_act": "gelu", "type_vocab_size": 2}
MODELS = {
    "roformer": (transformers.RoFormerForMaskedLM, transformers.RoFormerConfig),
    "bert": (transformers.BertForPreTraining, transformers.BertConfig),
}
FORMS = {"RoFormer-Sim": "roformer", "SimBERT": "bert"}


@dataclass(frozen=True)
class Released:
    kind: str
    model: transformers.PreTrainedModel
    state: dict[str, torch.Tensor]  # with the pooler, which transformers' RoFormer has not
    vectors: np.ndarray

    def write(self, folder: Path, form: str) -> Path:
        """As the port of RoFormer-Sim has it (.bin, is_decoder, pooler_activation), SimBERT's (neither), or Google."""
        if form == "tensorflow":
            write_tensorflow(folder, published(self.kind, {name: x.numpy() for name, x in self.state.items()}))
            (folder / "bert_config.json").write_text(json.dumps(SIZES))
        else:
            self.model.config.save_pretrained(folder)
            about = json.loads((folder / "config.json").read_text())
            if self.kind == "roformer":
                about |= {"is_decoder": True, "pooler_activation": "linear", "architectures": ["RoFormerForCausalLM"]}
                torch.save(self.state, folder / "pytorch_model.bin")
            else:
                save_file(
                    {name: x for name, x in self.state.items() if "decoder" not in name}, folder / "model.safetensors"
                )
            (folder / "config.json").write_text(json.dumps(about))
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        return folder


@pytest.fixture(scope="module", params=FORMS)
def released(request, tmp_path_factory) -> Released:
    kind = FORMS[request.param]
    torch.manual_seed(3)
    make, about = MODELS[kind]
    model = make(about(**SIZES)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter) * parameter.requires_grad)
    state = {name: x.contiguous() for name, x in model.state_dict().items()}
    state |= {
        f"{kind}.pooler.dense.{end}": torch.randn(*shape) / 5 for end, shape in (("weight", (24, 24)), ("bias", (24,)))
    }
    (vocabulary := tmp_path_factory.mktemp("vocabulary") / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tokenizer, found = transformers.BertTokenizer(str(vocabulary)), []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model.base_model(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[:, 0]
        found.append(
            torch.nn.functional.linear(hidden, *(state[f"{kind}.pooler.dense.{end}"] for end in ("weight", "bias")))
        )
    return Released(kind, model, state, torch.cat(found).numpy())


@pytest.mark.parametrize("form", ["huggingface", "tensorflow"])
def test_vectors_in_and_both_forms_out(released, form, tmp_path):
    folder = released.write(tmp_path / "in", form)
    source = load_sentence_encoder(folder)
    said = released.kind == "roformer" and form == "huggingface"  # only that folder says what its vectors are
    assert source.pooling == ("pooler" if said else None) and source.text.config.head
    close = lambda folder, *pooling: np.testing.assert_allclose(  # noqa: E731
        Embedder(folder).encode(TEXTS, *pooling), released.vectors, atol=1e-4 * np.abs(released.vectors).max()
    )
    close(folder, "pooler")
    given = {"model": str(folder), "pooling": "pooler"}
    theirs, google = tmp_path / "huggingface", tmp_path / "tensorflow"
    export_encoder(ExportEncoderConfig(folder=str(theirs), **given))
    export_encoder(ExportEncoderConfig(folder=str(google), form="tensorflow", **given))

    for out in (theirs, google):  # what comes back is all that went out, and says what its vectors are
        again = load_sentence_encoder(out)
        assert (again.pooling, again.steps, again.text.config.pooler) == ("pooler", (), "linear")
        jax.tree.map(np.testing.assert_array_equal, again.text.model, source.text.model)
        close(out)

    masked, about = transformers.AutoModelForMaskedLM.from_pretrained(theirs, output_loading_info=True)
    base = masked.base_model_prefix
    assert about.pop("unexpected_keys") == {f"{base}.pooler.dense.{end}" for end in ("weight", "bias")}
    assert not any(about.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    for text in TEXTS[:4]:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            wanted = released.model(ids)
            wanted = wanted.logits if released.kind == "roformer" else wanted.prediction_logits
            torch.testing.assert_close(masked.eval()(ids).logits, wanted, atol=1e-4, rtol=1e-4)

    reader = tensorflow.train.load_checkpoint(str(google / "bert_model.ckpt"))
    wanted = published(released.kind, {name: x.numpy() for name, x in released.state.items()})
    wanted = {name: x for name, x in wanted.items() if "seq_relationship" not in name}
    assert reader.get_variable_to_shape_map() == {name: [*x.shape] for name, x in wanted.items()}
    for name, x in wanted.items():
        np.testing.assert_array_equal(reader.get_tensor(name), x, err_msg=name)
    config = json.loads((google / "bert_config.json").read_text())
    assert {name: config[name] for name in SIZES} == SIZES
    assert (google / "vocab.txt").read_text().splitlines() == VOCABULARY


def test_what_transformers_saved_again_has_lost_its_pooler(released, tmp_path):
    """Its masked language models pass over it; a folder of theirs that still says so is refused, not read with tanh."""
    folder = released.write(tmp_path / "in", "huggingface")
    export_encoder(ExportEncoderConfig(model=str(folder), folder=str(tmp_path / "out"), pooling="pooler"))
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    with pytest.raises(DataError, match="the model has no pooler, which pooling 'pooler' is of"):
        Embedder(tmp_path / "again").encode(TEXTS)
