"""A prepared set as a dataset of tensorflow-datasets: its splits by as_data_source, without TensorFlow and uncopied.

rows = tfds_builder("runs/prepared").as_data_source("train[:10%]")
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.naming import ShardedFileTemplate

from pegasus_zh.rows.makers import known_sides
from pegasus_zh.rows.packing import decode_rows
from pegasus_zh.rows.prepared_set import SPLITS, Manifest, read_manifest
from training.files.buckets import on_disk, path_of


class Rows(tfds.features.FeaturesDict):
    """int32 arrays of a row, see decode_rows, out of a record as `encode_row` makes it."""

    def __init__(self, manifest: Manifest):
        tokenizer = manifest.tokenizer
        self._how = manifest.dtype, known_sides(manifest.row), tokenizer["pad_id"], tokenizer["start_id"]
        arrays = self.deserialize_example_np(b"")
        super().__init__({name: tfds.features.Tensor(shape=x.shape, dtype=x.dtype) for name, x in arrays.items()})

    def deserialize_example_np(self, serialized_example: bytes, *, decoders: Any = None) -> dict[str, np.ndarray]:
        rows = decode_rows([serialized_example], *self._how)
        return {name: array[0] for name, array in rows.items()}


class PreparedSet(tfds.core.DatasetBuilder):
    """Reads what is prepared."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, folder: Path, manifest: Manifest):
        self._manifest = manifest
        super().__init__(data_dir=folder)
        self._original_state = {"folder": folder, "manifest": manifest}  # of which a worker process makes it again
        self.info.set_splits(tfds.core.SplitDict([self._split(split) for split in SPLITS if manifest.files(split)]))

    def _build_data_dir(self, data_dir: str) -> tuple[str, str]:
        return data_dir, data_dir  # as it is, without a folder for name and version

    def _info(self) -> tfds.core.DatasetInfo:
        info = tfds.core.DatasetInfo(builder=self, features=Rows(self._manifest), description=self._manifest.summary())
        info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
        return info

    def _split(self, split: str) -> tfds.core.SplitInfo:
        files = {int(file.name.split(".")[0].rpartition("-")[2]): file for file in self._manifest.files(split)}
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[files[n].rows if n in files else 0 for n in range(max(files) + 1)],
            num_bytes=sum(file.size for file in files.values()),
            filename_template=ShardedFileTemplate(
                self.data_dir, "{SPLIT}-{SHARD_INDEX}.{FILEFORMAT}", self.name, split, "array_record"
            ),
        )

    def _download_and_prepare(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("a prepared set is made by scripts.prepare")

    def as_dataset(self, *_: Any, **__: Any) -> None:  # the other one's would first ask for TensorFlow
        raise NotImplementedError("of a prepared set there is as_data_source")

    _as_dataset = as_dataset


def tfds_builder(folder: Path | str) -> PreparedSet:
    """Of a prepared set, on a disk or in a bucket. Raises DataError where there is none."""
    return PreparedSet(on_disk(path_of(folder, "the prepared set")), read_manifest(folder))
