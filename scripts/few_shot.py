"""Compare pretraining objectives by few-shot fine-tuning: python -m scripts.few_shot --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.experiments.few_shot import FewShotConfig, few_shot

    few_shot(tyro.cli(FewShotConfig, prog=prog("few_shot")))


if __name__ == "__main__":
    run(main)
