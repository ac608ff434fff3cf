"""Score sentence vectors on tasks of scored pairs: python -m scripts.evaluate_similarity --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.experiments.similarity_grid import SimilarityGridConfig, similarity_grid
    from training.flags import parse_flags

    similarity_grid(parse_flags(SimilarityGridConfig, prog=prog("evaluate_similarity")))


if __name__ == "__main__":
    run(main)
