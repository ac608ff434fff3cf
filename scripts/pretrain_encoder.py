"""Pretrain RoFormer or BERT by masked language model: python -m scripts.pretrain_encoder --help"""

from training.command import run

from . import prog


def main() -> object:
    from pegasus_zh.text_encoder import parse, pretrain

    return pretrain(parse(prog=prog("pretrain_encoder")))


if __name__ == "__main__":
    run(main)
