"""Two processes tune as one."""

import json
import sys
from dataclasses import replace

import pytest

from retrieval.tuning.simcse import SimCSEConfig, TuningRecipe, simcse
from tests.pegasus_zh.test_command import in_two_processes
from tests.retrieval.small_model import write_model
from tests.retrieval.vectors.test_encoding import CHARACTERS
from tests.rope.encoder.random_encoder import ROFORMER
from training.optimizer import OptimizerConfig


@pytest.mark.slow
def test_two_processes_tune_as_one(tmp_path) -> None:
    """Losses, and correlations of what both encode, are those of one device."""
    # Without dropout, whose draws go by the place in a row: two processes pack their own rows.
    model, scored = write_model(tmp_path / "m", replace(ROFORMER, attention_dropout=0.0)), tmp_path / "s.tsv"
    texts = [(CHARACTERS * 2)[i : i + 2 + i % 9] for i in range(17)]
    scored.write_text("".join(f"{a}\t{b}\t{i % 3}\n" for i, (a, b) in enumerate(zip(texts, texts[1:], strict=False))))
    given = SimCSEConfig(
        model=str(model), data=(str(scored),), valid=str(scored), folder=str(tmp_path / "one"),
        recipe=TuningRecipe(loss="cosent", batch_size=16, accumulate=2, dropout=0.0, epochs=4.0, eval_every=2,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup=1, clip=0, weight_decay=0)),
    )  # fmt: skip
    simcse(given)
    command = [sys.executable, "-m", "scripts.simcse", "--model", model, "--data", scored, "--valid", scored]
    line = "--loss cosent --batch-size 16 --accumulate 2 --dropout 0 --epochs 4 --eval-every 2"
    rates = "--learning-rate 1e-3 --epsilon 1e-6 --weight-decay 0 --warmup 1 --clip 0"
    command += ["--folder", tmp_path / "two", *line.split(), *rates.split()]
    in_two_processes([str(x) for x in command], tensor=1)

    def told(name: str) -> dict[tuple[int, str], float]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return {(row["step"], key): row[key] for row in rows for key in ("loss", "eval_spearman") if key in row}

    one, two = told("one"), told("two")
    assert one.keys() == two.keys() and len(one) == 4
    for step, value in one.items():
        assert two[step] == pytest.approx(value, rel=1e-3)
