"""What does it take to know what anonymised numbers are? python -m scripts.alignment_grid --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.experiments.alignment_grid import AlignmentGridConfig, alignment_grid
    from training.flags import parse_flags

    alignment_grid(parse_flags(AlignmentGridConfig, prog=prog("alignment_grid")))


if __name__ == "__main__":
    run(main)
