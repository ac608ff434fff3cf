"""Fine-tune a model on pairs of texts: python -m scripts.finetune --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.finetune import FinetuneConfig, finetune

    finetune(tyro.cli(FinetuneConfig, prog=prog("finetune")))


if __name__ == "__main__":
    run(main)
