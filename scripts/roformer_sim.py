"""Train an encoder that finds similar questions, and writes them: python -m scripts.roformer_sim --help"""

from training.command import run

from . import prog


def main() -> object:
    from retrieval.tuning.roformer_sim import parse, roformer_sim

    return roformer_sim(parse(prog=prog("roformer_sim")))


if __name__ == "__main__":
    run(main)
