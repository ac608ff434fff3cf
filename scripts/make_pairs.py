"""Make pairs of texts that are alike out of what there is: python -m scripts.make_pairs --help"""

from collections.abc import Callable
from typing import Any

from training.command import run

from . import prog


def main() -> None:
    from retrieval.pairs import commands as pairs
    from retrieval.pairs import model_commands as by_model
    from training.flags import parse_command

    run_of: dict[type, Callable[[Any], Any]] = {
        pairs.GroupsConfig: pairs.groups,
        pairs.AnswersConfig: pairs.answers,
        pairs.PassagesConfig: pairs.passages,
        pairs.InstructConfig: pairs.instruct,
        by_model.MineConfig: by_model.mine,
        by_model.WriteConfig: by_model.write,
    }
    config = parse_command(
        {kind.__name__.removesuffix("Config").lower(): kind for kind in run_of},
        prog=prog("make_pairs"),
        description="Make pairs of texts that are alike: merged groups, answers to one question, sentences of one "
        "passage, nearest neighbours, or what a model writes.",
    )
    run_of[type(config)](config)


if __name__ == "__main__":
    run(main)
