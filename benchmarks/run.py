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


def main() -> None:
    files = tyro.cli(Config).data
    data, inputs = ["--data", *files], ["--data", files[0], "--field", "text"]
    commands = [
        ["pseudo_summaries", *data],
        ["tokenizers", *data],
        ["prepare", *data, "--profile"],
        ["packing", *data],
        ["rotary"],
        ["critics"],
        ["embeddings"],
        ["vectors"],
        ["training_step", "--preset", "tiny", "--rows", "16"],
        ["training_step", "--preset", "t5-pegasus-small"],
        ["decoding", *inputs, "--preset", "tiny"],
        ["decoding", *inputs, "--preset", "t5-pegasus-small"],
    ]
    for name, *arguments in commands:
        print(f"\n== benchmarks.{name} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
