"""The scores of one written summary as T5-PEGASUS's finetune.py takes them from the packages `rouge` and nltk."""

from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge import Rouge

_ROUGE, _SMOOTH = Rouge(), SmoothingFunction().method1


def reference_scores(reference: str, written: str) -> dict[str, float]:
    """By metric. `rouge` refuses a text without sentences, a lone full stop; its three scores are 0 then."""
    reference, written = (" ".join(text).lower() for text in (reference, written))
    found = dict.fromkeys(("rouge-1", "rouge-2", "rouge-l", "bleu"), 0.0)
    if not written.strip():
        return found
    if written != "." and reference != ".":
        found |= {name: score["f"] for name, score in _ROUGE.get_scores(written, reference)[0].items()}
    bleu = sentence_bleu([reference.split(" ")], written.split(" "), smoothing_function=_SMOOTH)
    return found | {"bleu": float(bleu)}
