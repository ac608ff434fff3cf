"""Fit a whitening on vectors: python -m scripts.whiten --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from retrieval.vectors.whitening import WhitenConfig, whiten_file

    whiten_file(tyro.cli(WhitenConfig, prog=prog("whiten")))


if __name__ == "__main__":
    run(main)
