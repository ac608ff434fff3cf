"""Compiled programs are kept where a run is, unless JAX was given a folder; afterwards all is as it was."""

import warnings

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


@pytest.mark.filterwarnings("always:Error reading persistent")
def test_of_damaged_programs_one_line_is_told(tmp_path, no_folder, said, capsys):
    def programs() -> list[float]:
        return [float(jax.jit(lambda x, y=y: x + y)(jnp.float32(1))) for y in (1, 2, 3)]

    with remember_programs(tmp_path):
        found = programs()
    damaged = sorted(tmp_path.glob("*-cache"))
    kinds = b"", b"noise", damaged[0].read_bytes()[:100]
    for number, path in enumerate(damaged):
        path.write_bytes(kinds[number % 3])
    with remember_programs(tmp_path):
        assert programs() == found == [2, 3, 4]
    assert len(damaged) > 2 and said == [
        f"{tmp_path}: a program there is damaged, so it is compiled anew; delete that folder to keep it again"
    ]
    assert capsys.readouterr() == ("", "")
    with remember_programs(tmp_path), pytest.warns(UserWarning, match="of another kind"):
        warnings.warn("of another kind", stacklevel=1)
    assert len(said) == 1
