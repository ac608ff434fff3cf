"""Every benchmark, one after the other: make bench ARGS="--data FILE [FILE …]" (jsonl.gz with a `text` field)."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class Config:
    data: tuple[str, ...] = (str(Path(__file__).parents[1] / "pegasus_zh" / "corpus" / "train.jsonl"),)
    """Documents to measure with; the built-in corpus is small, so give your own."""
    record: str = ""
    """A file to which every measurement is added as a line of JSON."""


def main() -> None:
    config = tyro.cli(Config)
    data, inputs = ["--data", *config.data], ["--data", config.data[0], "--field", "text"]
    commands = [
        ["pseudo_summaries", *data],
        ["tokenizers", *data],
        ["prepare", *data],
        ["prepare", *data, "--profile"],
        ["packing", *data],
        ["rotary"],
        ["critics"],
        ["certified"],
        ["embeddings"],
        ["roformer_sim"],
        ["matching"],
        ["matching", "--width", "256", "--layers", "4", "--pairs", "2000"],
        ["vectors"],
        ["training_step", "--preset", "tiny", "--rows", "16"],
        ["training_step", "--preset", "t5-pegasus-small"],
        ["decoding", *inputs, "--preset", "tiny"],
        ["decoding", *inputs, "--preset", "t5-pegasus-small"],
        ["similar_questions"],
    ]
    failed = []
    for name, *arguments in commands:
        print(f"\n== benchmarks.{name} {' '.join(arguments)}", flush=True)
        record = ["--record", config.record] if config.record else []
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments, *record]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"some of these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
