"""Write similar questions for each text: python -m scripts.similar_questions --help"""

import sys

from training.command import run

from . import prog


def main() -> None:
    from retrieval.similar.command import SimilarConfig, run_similar
    from training.flags import parse_flags

    run_similar(parse_flags(SimilarConfig, prog=prog("similar_questions")))


if __name__ == "__main__":
    run(main, notices=sys.stderr)  # standard output is for what is written
