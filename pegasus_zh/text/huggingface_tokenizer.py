"""A tokenizer's files for transformers.

* pegasus: vocab.txt, which `load_tokenizer` reads, and tokenizer.json for RoFormerTokenizer, the one class of
  transformers that cuts by jieba (HMM off) and looks words up before BERT's wordpiece. It needs `pip install rjieba`.
  Its ids are ours but for control, private and unassigned characters (it drops them before the text is cut into words,
  we after, or not at all), Σ at a word's end, combining marks newer than its tables, Latin words of more than 100
  characters ([UNK] there, pieces here), c++ and c# where the
  vocabulary lacks them (likewise), and special tokens written out in the text ([SEP] is one token there, plain text
  here). It decodes with spaces between all tokens.
  Where the rules are BERT's alone, the class is BertTokenizer.
  (vocab.txt alone is not enough for transformers 5.23: its class then takes no word of several characters for a token.)
* sentencepiece: spiece.model and the same model as tokenizer.json. T5Tokenizer would make <unk> of the characters that
  our ids spell as bytes, so the class is PreTrainedTokenizerFast. Its ids are ours but where two cuts of a text are
  equally probable, and for special tokens, names of bytes (<0x41>) and the mark of a blank (▁) written out in the text.

Added tokens are in tokenizer.json.
"""

from pathlib import Path
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from pegasus_zh.text.added_tokens import library_token
from pegasus_zh.text.tokenizers import (
    CLS,
    MASK,
    PAD,
    SENTENCEPIECE_FILE,
    SEP,
    PegasusTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
)
from pegasus_zh.text.wordpieces import UNK, plain_bert
from training.files.errors import DataError


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer's own files, with what transformers needs beside it: tokenizer.json, and more in
    tokenizer_config.json. Raises DataError for a sentencepiece model that is not unigram."""
    # Without model_input_names transformers adds token_type_ids, which MT5's generate refuses.
    about: dict[str, Any] = {"model_input_names": ["input_ids", "attention_mask"]}
    settings = tokenizer.settings
    if isinstance(tokenizer, PegasusTokenizer):
        # The class adds the rest by itself.
        kind = "BertTokenizer" if settings.plain else "RoFormerTokenizer"
        about |= {"tokenizer_class": kind, "do_lower_case": not settings.cased}
        about |= {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
        tokenizer.save(folder, about)
        fast = plain_bert({token: i for i, token in enumerate(tokenizer.vocabulary)}, settings.cased)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        about |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        about |= dict(zip(("pad_token", "eos_token", "unk_token"), tokenizer.vocabulary, strict=False))
        tokenizer.save(folder, about)
        fast = _fast_sentencepiece(folder / SENTENCEPIECE_FILE, "first" if settings.one_prefix else "always")
    _add_tokens(fast, tokenizer)
    fast.save(str(folder / "tokenizer.json"))


def _add_tokens(fast: tokenizers.Tokenizer, tokenizer: Tokenizer) -> None:
    """The library numbers added tokens as they come: what has no name in between gets one."""
    added = {token.id: library_token(token) for token in tokenizer.settings.added}
    unnamed = range(fast.get_vocab_size(), tokenizer.vocab_size)
    fast.add_tokens([added.get(i) or tokenizers.AddedToken(f"<unnamed_{i}>", special=True) for i in unnamed])
    fast.add_tokens([token for i, token in added.items() if i not in unnamed])


def _fast_sentencepiece(path: Path, scheme: str) -> tokenizers.Tokenizer:
    """A unigram sentencepiece model for the tokenizers library, with its normalisation and its bytes."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    if proto.trainer_spec.model_type != sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
        raise DataError("the tokenizer is a sentencepiece model, but not a unigram one as mT5's; it cannot be exported")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    fast = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=proto.trainer_spec.byte_fallback))
    rules = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        # Blanks alone, as sentencepiece: without NFKC a tab stays, which Strip would take.
        steps += [
            normalizers.Replace(tokenizers.Regex(r"\A +| +\z"), ""),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    fast.normalizer = normalizers.Sequence(steps)
    prefix = scheme if rules.add_dummy_prefix else "never"
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    fast.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prefix)])
    end = pieces[1][0]
    fast.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return fast
