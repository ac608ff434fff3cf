"""Do two texts mean the same whose characters are numbers? python -m scripts.match_anonymised --help"""

from collections.abc import Callable
from typing import Any

from training.command import run

from . import prog


def main() -> object:
    from retrieval.matching.commands.align import AlignConfig, align
    from retrieval.matching.commands.anonymise import AnonymiseConfig, anonymise
    from retrieval.matching.commands.predict import PredictConfig, predict
    from retrieval.matching.commands.score import ScoreConfig, score
    from retrieval.matching.commands.train import TrainConfig, train
    from training.flags import parse_command

    run_of: dict[type, Callable[[Any], Any]] = {
        AnonymiseConfig: anonymise,
        AlignConfig: align,
        TrainConfig: train,
        PredictConfig: predict,
        ScoreConfig: score,
    }
    config = parse_command(
        {kind.__name__.removesuffix("Config").lower(): kind for kind in run_of},
        prog=prog("match_anonymised"),
        description="Match texts whose characters are numbers: find what these may be, train, predict, score.",
    )
    return run_of[type(config)](config)


if __name__ == "__main__":
    run(main)
