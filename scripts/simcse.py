"""Tune an encoder for sentence vectors: python -m scripts.simcse --help"""

from training.command import run

from . import prog


def main() -> object:
    from retrieval.tuning.simcse import parse, simcse

    return simcse(parse(prog=prog("simcse")))


if __name__ == "__main__":
    run(main)
