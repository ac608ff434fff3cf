"""Score written summaries against references: python -m scripts.evaluate FILE [FILE …]"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.evaluation import EvaluateTextsConfig, evaluate

    evaluate(tyro.cli(EvaluateTextsConfig, prog=prog("evaluate")))


if __name__ == "__main__":
    run(main)
