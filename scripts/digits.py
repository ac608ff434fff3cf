"""Compare a ViT's position encodings on digits: python -m scripts.digits --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from rope.experiments.digits import DigitsConfig, digits

    digits(tyro.cli(DigitsConfig, prog=prog("digits")))


if __name__ == "__main__":
    run(main)
