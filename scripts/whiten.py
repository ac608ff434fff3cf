"""Fit a whitening on vectors: python -m scripts.whiten --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.vectors.whitening import WhitenConfig, whiten_file
    from training.flags import parse_flags

    whiten_file(parse_flags(WhitenConfig, prog=prog("whiten")))


if __name__ == "__main__":
    run(main)
