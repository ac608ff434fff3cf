"""Command lines out of dataclasses."""

from dataclasses import make_dataclass
from typing import Annotated, Literal

import pytest
import tyro

from training.flags import one_of


@pytest.mark.parametrize("args", [["--help"], ["--preset", "nope"], ["--preset"]])
def test_a_tables_names_are_shown_and_checked_as_choices(args, capsys):
    told = []
    for kind in (Annotated[str, one_of({"tiny": 1, "large": 2})], Literal["tiny", "large"]):
        config = make_dataclass("Config", [("preset", kind, "tiny")], frozen=True)
        with pytest.raises(SystemExit):
            tyro.cli(config, prog="it", args=args)
        told.append(capsys.readouterr())
        assert tyro.cli(config, args=["--preset", "large"]) == config("large")
    assert told[0] == told[1] and "preset" in f"{told[0]}"
