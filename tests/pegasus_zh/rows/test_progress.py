"""The bar moves within a shard, and by what workers do."""

import sys
import time
from functools import partial

import pytest

from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig, ShardMaker
from pegasus_zh.rows.progress import Done, DoneHere, DoneTogether, bar
from pegasus_zh.rows.workers import in_processes
from pegasus_zh.text.documents import find_sources, mixed_records
from pegasus_zh.text.tokenizers import PegasusTokenizer
from pegasus_zh.text.vocabulary import SPECIALS
from tests.listening import Terminal


def add(done: Done, number: int, count: int) -> int:
    done.add(count)
    return number


def test_it_moves_before_the_end(monkeypatch, shown) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    done = DoneHere()
    with bar("prepare", done):
        done.add(5)
        end = time.monotonic() + 20
        while "5.00B [" not in terminal.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        assert "5.00B [" in terminal.getvalue()
        done.add(2)
    assert terminal.getvalue().rstrip().rpartition("\r")[2].startswith("prepare: 7.00B [")


def test_workers_add_to_one_sum() -> None:
    done = DoneTogether()
    tasks = ((number, number) for number in range(1, 9))
    assert sorted(number for number, _ in in_processes(partial(add, done), tasks, 2)) == [*range(1, 9)]
    assert done.bytes == sum(range(1, 9))


@pytest.mark.parametrize(("count", "length", "blocks"), [(300, 100, 2), (7, 100_000, 3)])
def test_a_shard_adds_block_by_block(tmp_path, count: int, length: int, blocks: int) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(["好" * length] * count), "utf-8")

    class Steps(DoneHere):
        def add(self, count: int) -> None:
            super().add(count)
            steps.append(count)

    steps: list[int] = []
    examples = ExamplesConfig(selector="lead", row_source=384, row_target=128)
    config, tokenizer = PrepareConfig(data=(str(tmp_path / "a.txt"),)), PegasusTokenizer([*SPECIALS, "好"])
    make = ShardMaker(examples, config, tokenizer, tmp_path, examples.row, done=Steps())
    shard = make(0, list(mixed_records(find_sources(config.data))))
    assert len(steps) == blocks and sum(steps) == shard.bytes == 3 * length * count
