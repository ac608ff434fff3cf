"""Compiled programs are kept where a run is, unless JAX was given a folder; afterwards all is as it was."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from training.compiled import remember_programs


@pytest.fixture
def no_folder():
    """As for a user who gives JAX none."""
    given = jax.config.jax_compilation_cache_dir
    for folder in (None, given):
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        if folder is None:
            yield


def double() -> None:
    jax.jit(lambda x: 2 * x)(jnp.ones(3)).block_until_ready()


def test_programs_are_kept_and_found(tmp_path, no_folder):
    double()  # what was compiled before, without a folder, does not keep JAX from using one
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    with remember_programs(tmp_path):
        double()
    kept = {path.name for path in tmp_path.glob("*-cache")}
    assert kept and jax.config.jax_compilation_cache_dir is None
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before
    double()
    with remember_programs(tmp_path):
        double()
    assert {path.name for path in tmp_path.glob("*-cache")} == kept


def test_a_folder_that_jax_was_given_stays(tmp_path, no_folder):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "given"))
    with remember_programs(tmp_path / "other"):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given")
    assert not (tmp_path / "other").exists()
