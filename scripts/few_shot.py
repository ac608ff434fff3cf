"""Compare pretraining objectives by few-shot fine-tuning: python -m scripts.few_shot --help"""

from training.command import run

from . import prog


def main() -> None:
    from pegasus_zh.experiments.few_shot import FewShotConfig, few_shot
    from training.flags import parse_flags

    few_shot(parse_flags(FewShotConfig, prog=prog("few_shot")))


if __name__ == "__main__":
    run(main)
