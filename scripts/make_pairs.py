"""Make pairs of texts that are alike out of what there is: python -m scripts.make_pairs --help"""

from collections.abc import Callable
from typing import Any

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from retrieval.pairs import commands as pairs
    from retrieval.pairs import model_commands as by_model
    from training.flags import plain_refusals

    run_of: dict[type, Callable[[Any], Any]] = {
        pairs.GroupsConfig: pairs.groups,
        pairs.AnswersConfig: pairs.answers,
        pairs.PassagesConfig: pairs.passages,
        pairs.InstructConfig: pairs.instruct,
        by_model.MineConfig: by_model.mine,
        by_model.WriteConfig: by_model.write,
    }
    with plain_refusals():
        config = tyro.extras.subcommand_cli_from_dict(
            {kind.__name__.removesuffix("Config").lower(): kind for kind in run_of},
            prog=prog("make_pairs"),
            description="Make pairs of texts that are alike: merged groups, answers to one question, sentences of one "
            "passage, nearest neighbours, or what a model writes.",
        )
    run_of[type(config)](config)


if __name__ == "__main__":
    run(main)
