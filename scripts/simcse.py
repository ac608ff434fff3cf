"""Tune an encoder for sentence vectors: python -m scripts.simcse --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from retrieval.tuning.simcse import SimCSEConfig, simcse

    simcse(tyro.cli(SimCSEConfig, prog=prog("simcse")))


if __name__ == "__main__":
    run(main)
