"""Which parts of RoFormer-Sim help, on your labelled pairs? python -m scripts.question_ablation --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.experiments.question_ablation import QuestionAblationConfig, question_ablation
    from training.flags import parse_flags

    question_ablation(parse_flags(QuestionAblationConfig, prog=prog("question_ablation")))


if __name__ == "__main__":
    run(main)
