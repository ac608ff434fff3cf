"""transformers' MT5 in torch, holding the weights of one of our models through an exported folder."""

from pathlib import Path

import numpy as np
import torch
from transformers import MT5ForConditionalGeneration

from pegasus_zh.t5.huggingface import write_folder
from pegasus_zh.t5.mt5 import MT5, MT5Config
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS


def reference_model(model: MT5, config: MT5Config, folder: Path) -> MT5ForConditionalGeneration:
    write_folder(folder, model, config, PegasusTokenizer(SPECIALS))
    return MT5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()


def reference_outputs(
    model: MT5ForConditionalGeneration, batch: dict[str, np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, mean loss over the real labels) of rows of one pair each."""
    ids = {name: torch.from_numpy(x).long() for name, x in batch.items()}
    output = model(
        input_ids=ids["source"],
        attention_mask=(ids["source_segments"] > 0).long(),
        decoder_input_ids=ids["target_inputs"],
        decoder_attention_mask=(ids["target_segments"] > 0).long(),
        labels=ids["target"].masked_fill(ids["target_segments"] == 0, -100),
    )
    return output.logits, output.loss
