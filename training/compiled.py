"""Compiled programs, kept from one run to the next."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextmanager
def remember_programs(folder: Path) -> Iterator[None]:
    """What is compiled meanwhile is kept in `folder`, and found there by the next run; where JAX was given a folder
    already (JAX_COMPILATION_CACHE_DIR), in that one, by its rules."""
    settings = {
        "jax_compilation_cache_dir": str(folder.absolute()),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    if before["jax_compilation_cache_dir"]:
        yield
        return
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def _configure(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the settings once, as it first compiles
