"""Score written summaries against references: python -m scripts.evaluate FILE [FILE …]"""

from training.command import run

from . import prog


def main() -> None:
    from pegasus_zh.evaluation import EvaluateTextsConfig, evaluate
    from training.flags import parse_flags

    evaluate(parse_flags(EvaluateTextsConfig, prog=prog("evaluate")))


if __name__ == "__main__":
    run(main)
