"""Compare a ViT's position encodings on digits: python -m scripts.digits --help"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from rope.experiments.digits import DigitsConfig, digits
    from training.experiment.cells import remember_programs

    config = tyro.cli(DigitsConfig, prog=prog("digits"))
    remember_programs(config.folder)
    digits(config)


if __name__ == "__main__":
    run(main)
