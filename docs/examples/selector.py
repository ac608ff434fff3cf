"""A selector of one's own: which sentences of a document become the pseudo-summary that T5 is taught to write.

Run it: PYTHONPATH=. python docs/examples/selector.py (or install the project). Then:
pegasus_zh/rows/pseudo_summary.py, and docs/prepare.md on selectors.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pegasus_zh import load_writer, pretrain_t5
from pegasus_zh.rows.makers import add_selector
from pegasus_zh.rows.pseudo_summary import Unit, pseudo_summary


def ends(sentences: Sequence[str], unit: Unit, seed: int) -> Iterator[int]:
    """The numbers of all sentences, best first:
    the last, the first, the last but one, … Texts often end in what they say."""
    left, right = 0, len(sentences) - 1
    while left <= right:
        yield right
        if left < right:
            yield left
        left, right = left + 1, right - 1


# Outside of `main`: where several processes prepare, each imports this file and finds the selector.
add_selector("ends", ends)


def main() -> None:
    source, target = pseudo_summary(["天阴。", "风起。", "云来。", "雨落。"], selector="ends", ratio=0.25)
    print("of four sentences", source, "stay and", target, "are to be written")

    # In this process the name is a value of `selector` like any other.
    short: dict[str, Any] = {"max_source": 64, "max_target": 32, "row_source": 64, "row_target": 32}
    run = pretrain_t5(selector="ends", steps=4, folder="runs/ends", batch_size=8, samples=0, **short)
    print(f"loss {run.metrics['loss']:.2f} after {run.metrics['step']} steps")
    print(load_writer(run.folder)(["带老人看病，功夫一半在门诊室外面。"], max_target=8))


if __name__ == "__main__":
    main()
