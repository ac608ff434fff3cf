"""Compare position encodings on text longer than trained on: python -m scripts.lengths --help"""

from training.command import run

from . import prog


def main() -> None:
    from pathlib import Path
    from typing import Annotated

    import tyro

    from pegasus_zh.rows.plain_text import TextConfig, text_rows
    from rope.experiments.lengths import LengthsConfig, lengths
    from training.flags import FLAT

    def command(
        text: Annotated[TextConfig, FLAT] = TextConfig(),  # noqa: B008
        experiment: Annotated[LengthsConfig, FLAT] = LengthsConfig(),  # noqa: B008
    ) -> None:
        """Trains encoders on short rows of Chinese text, an encoding and a seed each, and scores them on longer ones.

        The same command goes on where it was stopped.
        """
        lengths(experiment, lambda length: text_rows(text, length, Path(experiment.folder)))

    tyro.cli(command, prog=prog("lengths"))


if __name__ == "__main__":
    run(main)
