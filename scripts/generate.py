"""Write a text for each input: python -m scripts.generate --help"""

import sys

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.generation import GenerateConfig, run_generation

    run_generation(tyro.cli(GenerateConfig, prog=prog("generate")))


if __name__ == "__main__":
    run(main, notices=sys.stderr)  # standard output is for what is written
