"""What makes a matcher of anonymised texts good, on your labelled pairs? python -m scripts.matching_ablation --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.experiments.matching_ablation import MatchingAblationConfig, matching_ablation
    from training.flags import parse_flags

    matching_ablation(parse_flags(MatchingAblationConfig, prog=prog("matching_ablation")))


if __name__ == "__main__":
    run(main)
