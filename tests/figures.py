"""Ties of docs' tables to the code that made them.

A table takes minutes or hours, so no test makes it again: what its command computes is computed at a small size
instead, and kept in goldens/figures.json. Where that differs by more than rounding, the table is of other code.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

KEPT = Path(__file__).parent / "goldens" / "figures.json"
ANEW = "FIGURES"  # an environment variable; `make figures` sets it


def tied(page: str, experiment: str, figures: dict[str, object]) -> None:
    """Fails where `figures`, numbers or lists of them by name, are not those that are kept."""
    now = {name: np.asarray(value, float).tolist() for name, value in figures.items()}
    kept = json.loads(KEPT.read_bytes()) if KEPT.exists() else {}
    if os.environ.get(ANEW):
        kept.setdefault(page, {})[experiment] = now
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
        return
    before = kept.get(page, {}).get(experiment, {})
    others = [name for name in {*before, *now} if not _alike(before.get(name), now.get(name))]
    if others:
        pytest.fail(
            f"{experiment} says another thing of {', '.join(sorted(others))}: its tables in {page} are of other code. "
            f"Make them again by the commands above them, then `make figures`"
        )


def _alike(before: object, now: object) -> bool:
    if before is None or now is None or np.shape(before) != np.shape(now):
        return False
    return np.allclose(before, now, rtol=2e-3, atol=1e-5, equal_nan=True)
