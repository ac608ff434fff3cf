"""Compare position encodings on text longer than trained on: python -m scripts.lengths --help"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    from pathlib import Path
    from typing import Annotated

    import tyro

    from pegasus_zh.rows.plain_text import TextConfig, text_rows
    from rope.experiments.lengths import LengthsConfig, lengths
    from training.command import run

    Plain = tyro.conf.arg(name="")

    def main(
        text: Annotated[TextConfig, Plain] = TextConfig(),  # noqa: B008
        experiment: Annotated[LengthsConfig, Plain] = LengthsConfig(),  # noqa: B008
    ) -> None:
        """Trains encoders on short rows of Chinese text, an encoding and a seed each, and scores them on longer ones.

        The same command goes on where it was stopped.
        """
        folder = Path(experiment.folder)
        lengths(experiment, lambda length: text_rows(text, length, folder))

    run(lambda: tyro.cli(main, prog="python -m scripts.lengths"))
