"""What was compiled once is read the next time; a slice that cannot be is one line."""

import gzip
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.stages import Lowered

from tests.listening import listening
from training.mesh import MeshConfig, make_mesh
from training.pods.compilation import compile_kept, compiler, tpu_mesh
from training.pods.memory import GIB, DoesNotFit


def lowered(scale: float, scope: str = "product") -> Lowered:
    @jax.jit
    def product(x):
        with jax.named_scope(scope):
            return scale * x @ x

    return product.lower(jnp.ones((8, 8)))


def test_the_same_program_is_compiled_once(tmp_path, monkeypatch):
    mesh = make_mesh(MeshConfig())
    first = compile_kept(lowered(2.0), mesh, {}, tmp_path)
    assert "ENTRY" in first.text and first.arguments == 4 * 64
    monkeypatch.setattr(Lowered, "compile", None)
    assert compile_kept(lowered(2.0), mesh, {}, tmp_path) == first
    with pytest.raises(TypeError):
        compile_kept(lowered(3.0), mesh, {}, tmp_path)
    with pytest.raises(TypeError):
        compile_kept(lowered(2.0, "square"), mesh, {}, tmp_path)
    with pytest.raises(TypeError):
        compile_kept(lowered(2.0), mesh, {"an_option": True}, tmp_path)


@pytest.mark.parametrize("name", ["LIBTPU_INIT_ARGS", "XLA_FLAGS"])
def test_what_is_kept_is_of_the_users_flags(tmp_path, monkeypatch, name):
    mesh = make_mesh(MeshConfig())
    monkeypatch.setenv(name, "--xla_jf_dump_to=/of/the/moment")
    compile_kept(lowered(2.0), mesh, {}, tmp_path)
    monkeypatch.setattr(Lowered, "compile", None)
    monkeypatch.setenv(name, "--xla_jf_dump_to=/of/another")
    compile_kept(lowered(2.0), mesh, {}, tmp_path)
    monkeypatch.setenv(name, "--xla_tpu_some=true --xla_jf_dump_to=/of/another")
    with pytest.raises(TypeError):
        compile_kept(lowered(2.0), mesh, {}, tmp_path)


@pytest.mark.parametrize("content", ["", "no gzip", "begun", "cut", "[", "[1]"])
def test_what_is_damaged_is_compiled_again(tmp_path, content):
    mesh = make_mesh(MeshConfig())
    first = compile_kept(lowered(2.0), mesh, {}, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    damaged = {"": b"", "no gzip": b"no gzip", "begun": whole[:3], "cut": whole[:-20]}
    file.write_bytes(damaged[content] if content in damaged else gzip.compress(content.encode()))
    with listening() as lines:
        assert compile_kept(lowered(2.0), mesh, {}, tmp_path) == first
    assert lines[0].startswith(f"{file}: damaged (") and "\n" not in lines[0] and file.read_bytes()[10:] == whole[10:]


def test_a_library_at_the_root_is_no_traceback(monkeypatch):
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/x.so")
    assert compiler().startswith("jax ")


@pytest.mark.parametrize("name", ["", "v5e", "v5e:0x0", "v5e:4x", "v5e:4x4 ", "v5e-16", "v5p:2x2x0"])
def test_a_name_that_libtpu_would_misread_does_not_reach_it(monkeypatch, name):
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", None)
    with pytest.raises(ValueError, match="^no TPU topology '.*': names are like v4:2x2x1"):
        tpu_mesh(name, MeshConfig())


def test_a_text_that_jax_does_not_read_is_the_compilers_own(tmp_path, monkeypatch):
    text, compiling = 'ENTRY }, execution_thread="sparsecore"', Lowered.compile

    def written(self, compiler_options):
        (Path(compiler_options["xla_dump_to"]) / "module_0000.jit_product.after_codegen.txt").write_text(text)
        return compiling(self, compiler_options)

    monkeypatch.setattr(Lowered, "compile", written)
    assert compile_kept(lowered(5.0), make_mesh(MeshConfig()), {}, tmp_path).text == text


def test_a_refusal_is_kept_too(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: (20.5G) exceeds available HBM (15.75G). E1000")

    monkeypatch.setattr(Lowered, "compile", refuse)
    for _ in range(2):
        with pytest.raises(DoesNotFit) as refused:
            compile_kept(lowered(2.0), make_mesh(MeshConfig()), {}, tmp_path)
        assert refused.value.needed == 20.5 * GIB
        monkeypatch.setattr(Lowered, "compile", None)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("JAX TPU support not installed; cannot generate TPU topology.", "libtpu, the compiler for TPUs, is missing"),
        ("INVALID_ARGUMENT: Invalid TPU external name: TPU v9x\nmore", "no TPU topology 'v9x:2x2'"),
    ],
)
def test_no_slice_is_one_line(monkeypatch, said, shown):
    def fail(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", fail)
    with pytest.raises(ValueError) as error:
        tpu_mesh("v9x:2x2", MeshConfig())
    assert str(error.value).startswith(shown) and "\n" not in str(error.value)
