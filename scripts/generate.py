"""Write a text for each input: python -m scripts.generate --help"""

import sys

from training.command import run

from . import prog


def main() -> None:
    from pegasus_zh.generation import GenerateConfig, run_generation
    from training.flags import parse_flags

    run_generation(parse_flags(GenerateConfig, prog=prog("generate")))


if __name__ == "__main__":
    run(main, notices=sys.stderr)  # standard output is for what is written
