"""Say what a run's time went to, and whether it goes on: python -m scripts.watch FOLDER"""

from training.command import run

from . import prog


def main() -> None:
    from typing import Annotated

    import tyro

    from training.files.buckets import path_of
    from training.flags import parse_flags
    from training.goodput import plot, read_events, table, watched

    def watch(folder: Annotated[str, tyro.conf.Positional], picture: str | None = None) -> None:
        """What a run's time went to, and whether it goes on.

        Args:
            folder: The run's, on a disk or in a bucket.
            picture: A PNG for a bar of the wall time, coloured by what it went to.
        """
        found = watched(read_events(path_of(folder, "FOLDER") / "events.jsonl"))
        print(table(found))
        if picture is not None:
            plot(found, path_of(picture, "--picture"))

    parse_flags(watch, prog=prog("watch"))


if __name__ == "__main__":
    run(main)
