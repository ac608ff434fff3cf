"""One shard of a prepared set out of its records, wherever they are sent to."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.packing import Example, encode_row, pack
from pegasus_zh.rows.prepared_set import Contents, ShardFile, Split, checksum, id_dtype, journal
from pegasus_zh.rows.progress import Done, DoneHere
from pegasus_zh.text.documents import DocumentsConfig, parse_records
from pegasus_zh.text.losses import counting
from pegasus_zh.text.records import Record
from pegasus_zh.text.tokenizers import Tokenizer
from training.files.atomic import atomic_write, write_json
from training.files.errors import DataError

BLOCK, BLOCK_CHARACTERS = 256, 1 << 18  # documents that go through the stages together, at most so many or of so much
KEPT = "then run the same command again; finished shards are kept"


@dataclass(frozen=True)
class ShardMaker:
    """Makes one shard after another."""

    examples: ExamplesConfig
    config: DocumentsConfig
    tokenizer: Tokenizer
    folder: Path
    row: dict[str, int]  # positions of each side
    held: int | None = None  # the digest of what is held out beside the fraction
    done: Done = field(default_factory=DoneHere)  # of texts, in UTF-8

    def __call__(self, index: int, records: Sequence[Record]) -> Contents:
        """Writes the shard's files and then its journal. Raises DataError for a bad document or a full disk."""
        config, skipped = self.config, Counter[str]()
        counts = Counter(documents=0, without_examples=0, bytes=0)
        lowest: int | None = None
        tokenizer, lost = counting(self.tokenizer)
        examples: dict[Split, list[Example]] = {"train": [], "eval": []}
        texts = parse_records(records, self.examples.maker.reads.of(config), config.on_bad_record, skipped)
        for block in _blocks(texts):
            before = counts["bytes"]
            for text, found in zip(block, self.examples.make(block, tokenizer), strict=True):
                # By its source alone is a pair held out: so are then all the references of that source.
                content, *others = [part.encode() for part in ((text,) if isinstance(text, str) else text)]
                digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
                is_held = digest < config.eval_fraction * 2**64 or digest == self.held
                examples["eval" if is_held else "train"] += found
                if found and (lowest is None or digest < lowest):
                    lowest = digest
                counts.update(documents=1, without_examples=not found, bytes=len(content) + sum(map(len, others)))
            self.done.add(counts["bytes"] - before)
        try:
            files = [self._write(split, index, examples[split]) for split in examples if examples[split]]
            losses = lost()
            losses.characters = losses.commonest()
            bad = dict(sorted(skipped.items()))
            shard = Contents(files=files, skipped=bad, losses=losses, lowest=lowest, **counts)
            write_json(journal(self.folder, index), asdict(shard))
        except (OSError, RuntimeError) as error:  # ArrayRecord's is a RuntimeError
            raise DataError(f"{self.folder}: cannot write shard {index} ({error}); make room, {KEPT}") from error
        return shard

    def _write(self, split: Split, index: int, examples: list[Example]) -> ShardFile:
        lengths, dtype, row = lengths_of(examples), id_dtype(self.tokenizer.vocab_size), [*self.row.values()]
        rows = pack(lengths, row, self.examples.maker.most(row[0]))
        path = self.folder / f"{split}-{index:05d}.array_record"
        with atomic_write(path) as temporary:
            # Ids hardly compress (zstd: 16%), and uncompressed ones are read in half the time.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            for members in rows:
                writer.write(encode_row([examples[i] for i in members], dtype))
            writer.close()
            size, sha256 = temporary.stat().st_size, checksum(temporary)
        tokens = dict(zip(self.row, lengths.sum(0).tolist(), strict=True))
        return ShardFile(split, path.name, len(rows), len(examples), tokens, size, sha256)


def _blocks(texts: Iterable[Any]) -> Iterator[list[Any]]:
    """Documents, or pairs, in lists."""
    block: list[Any] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(block) == BLOCK or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def lengths_of(examples: Sequence[Example]) -> np.ndarray:
    """(examples, sides): ids of each side of one example or more."""
    return np.array([[len(side) for side in example] for example in examples], np.int64)
