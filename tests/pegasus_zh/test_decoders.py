"""What writes is loaded by what its folder says it is."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pegasus_zh import pretrain_encoder
from pegasus_zh.decoders import load_decoder
from pegasus_zh.t5.decoder import MT5Decoder
from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.text.documents import CORPUS
from rope.encoder.prefix_decoder import PrefixDecoder
from tests.pegasus_zh.test_writing import CONFIG, MODEL, TOKENIZER
from tests.retrieval.small_model import write_model
from tests.rope.encoder.random_encoder import ROFORMER, one_layer_preset
from training.files.errors import DataError


def test_folders_and_runs(tmp_path, one_device):
    write_folder(tmp_path / "t5", MODEL, CONFIG, TOKENIZER)
    ready = load_decoder(tmp_path / "t5")
    assert isinstance(ready.decoder, MT5Decoder) and ready.tokenizer.fingerprint == TOKENIZER.fingerprint
    roformer = write_model(tmp_path / "roformer")
    ready = load_decoder(roformer, dtype="bfloat16")
    assert isinstance(ready.decoder, PrefixDecoder) and ready.decoder.config.dtype == "bfloat16"
    assert load_decoder(roformer).fingerprint == ready.fingerprint
    tokenizer = ready.tokenizer
    assert {*ready.suppressed} == {tokenizer.unk_id, tokenizer.start_id, tokenizer.mask_id}
    with one_layer_preset():
        settings = {"steps": 1, "length": 32, "vocabulary": 400}
        run = pretrain_encoder([CORPUS / "heldout.jsonl"], folder=tmp_path / "run", **settings)
        other = pretrain_encoder([CORPUS / "heldout.jsonl"], folder=tmp_path / "other", positions="buckets", **settings)
    for path in (run.folder, run.folder / "checkpoints"):
        ready = load_decoder(path)
        assert isinstance(ready.decoder, PrefixDecoder) and ready.decoder.config.layers == 1
    with pytest.raises(DataError, match="other: positions are buckets.*: writing step by step needs.*; give another"):
        load_decoder(other.folder)
    assert np.isfinite(jax.tree.leaves(ready.model)[0]).all()


def test_what_cannot_write(tmp_path):
    with pytest.raises(DataError, match="an encoder without the head that writes"):
        load_decoder(write_model(tmp_path / "headless", replace(ROFORMER, head=False)))
    with pytest.raises(DataError, match="no such folder"):
        load_decoder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no model here"):
        load_decoder(tmp_path / "empty")
    with pytest.raises(ValueError, match="dtype is 'float16'"):
        load_decoder(tmp_path / "headless", dtype="float16")
