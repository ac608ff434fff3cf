"""Compare position encodings on text longer than trained on: python -m scripts.lengths --help"""

from training.command import run

from . import prog


def main() -> None:
    from collections.abc import Callable
    from typing import Annotated

    from pegasus_zh.rows.plain_text import TextConfig, text_rows
    from rope.experiments.lengths import LengthsConfig, lengths
    from training.files.buckets import disk_path
    from training.flags import FLAT, parse_flags

    def command(
        text: Annotated[TextConfig, FLAT] = TextConfig(),  # noqa: B008
        experiment: Annotated[LengthsConfig, FLAT] = LengthsConfig(),  # noqa: B008
    ) -> Callable:
        """Trains encoders on short rows of Chinese text, an encoding and a seed each, and scores them on longer ones.

        The same command goes on where it was stopped.
        """
        return lambda: lengths(
            experiment, lambda length: text_rows(text, length, disk_path(experiment.folder, "--folder"))
        )

    parse_flags(command, prog=prog("lengths"))()


if __name__ == "__main__":
    run(main)
