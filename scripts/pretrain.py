"""Pretrain T5-PEGASUS from raw Chinese text: python -m scripts.pretrain --help"""

from training.command import run

from . import prog


def main() -> object:
    from pegasus_zh.pretrain import parse, pretrain

    return pretrain(parse(prog=prog("pretrain")))


if __name__ == "__main__":
    run(main)
