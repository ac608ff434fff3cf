"""Fine-tune a model on pairs of texts: python -m scripts.finetune --help"""

from training.command import run

from . import prog


def main() -> object:
    from pegasus_zh.finetune import finetune, parse

    return finetune(parse(prog=prog("finetune")))


if __name__ == "__main__":
    run(main)
