"""Texts to examples, examples to packed rows on disk, rows to batches."""
