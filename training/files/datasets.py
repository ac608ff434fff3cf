"""Prepared datasets of tensorflow-datasets, read without TensorFlow."""

from typing import Any

from training.files.errors import DataError


def open_dataset(dataset: str, split: str, name: str) -> tuple[Any, Any]:
    """(the data source, the builder) of NAME or NAME/CONFIG in $TFDS_DATA_DIR.
    Raises DataError, which begins with `name`."""
    import tensorflow_datasets as tfds  # most of a second: only where it is used

    remedy = f"prepare it with `tfds build {dataset} --file_format=array_record`, and check TFDS_DATA_DIR"
    try:
        builder = tfds.builder(dataset)
        if not builder.data_path.exists():
            raise FileNotFoundError(f"nothing in {builder.data_path}")
        return builder.as_data_source(split=split), builder
    except (ValueError, AssertionError, OSError, ImportError, NotImplementedError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"{name}: not readable ({reason}); {remedy}") from error
