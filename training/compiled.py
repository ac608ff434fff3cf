"""Compiled programs, kept from one run to the next."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import jax
from jax.experimental.compilation_cache import compilation_cache

from training.files.buckets import absolute
from training.telling import tell


@contextmanager
def remember_programs(folder: Path) -> Iterator[None]:
    """What is compiled meanwhile is kept in `folder`, and found there by the next run; where JAX was given a folder
    already (JAX_COMPILATION_CACHE_DIR), in that one, by its rules."""
    settings = {
        "jax_compilation_cache_dir": str(absolute(folder)),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    if before["jax_compilation_cache_dir"]:
        yield
        return
    _configure(settings)
    try:
        with _damage_told(folder):
            yield
    finally:
        _configure(before)


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """JAX warns of each file that it cannot read, and compiles anew without replacing it: here one line is of all."""
    show, told = warnings.showwarning, False

    def tell_once(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        nonlocal told
        if not str(message).startswith("Error reading persistent compilation cache entry"):
            show(message, category, filename, lineno, file, line)
        elif not told:
            told = True
            tell(f"{folder}: a program there is damaged, so it is compiled anew; delete that folder to keep it again")

    warnings.showwarning = tell_once
    try:
        yield
    finally:
        warnings.showwarning = show


def _configure(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the settings once, as it first compiles
