"""Compare a ViT's position encodings on digits: python -m scripts.digits --help"""

from training.command import run

from . import prog


def main() -> None:
    from rope.experiments.digits import DigitsConfig, digits
    from training.flags import parse_flags

    digits(parse_flags(DigitsConfig, prog=prog("digits")))


if __name__ == "__main__":
    run(main)
