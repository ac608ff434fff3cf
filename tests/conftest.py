"""The tests' machine: eight CPU devices a process, whatever it has; compiled quickly rather than well, and once."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec

import hypothesis
import pytest

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    # XLA's optimisations take minutes over the suite;
    # level 0 leaves shapes, shardings and order of summation as they are.
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    "NPROC": "32",  # XLA's threads: eight devices that wait for each other deadlock in fewer than they need
    "OPENBLAS_NUM_THREADS": "1",  # a worker a core; threads that wait for each other take ten times as long
    "OMP_NUM_THREADS": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "1",  # of where each operation came from, the nearest line
}
# Of the versions that are pinned jaxlib 0.10 alone has the first of these flags;
# another one, and libtpu, stop at what they do not know.
if version("jaxlib").startswith("0.10.") and "TPU_LIBRARY_PATH" not in os.environ and not find_spec("libtpu"):
    # Loops by LLVM's builder rather than by MLIR, in one module a program, compile in a third of the time.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# Programs compiled by one process of this run, pytest's workers and the tests' own, serve the others. The folder is new
# for every run: compiled code of another machine or version is never met.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

# What tracing makes is many small objects, through which the collector would go thousands of times: a tenth of the run.
gc.set_threshold(100_000, 10, 5)

hypothesis.settings.register_profile("untimed", deadline=None)  # no test asserts a time
hypothesis.settings.load_profile("untimed")


def pytest_collection_finish():
    gc.freeze()  # what importing made stays


@pytest.fixture(scope="module")
def one_device():
    """Where a module's tests are not of meshes: one of all devices is of one, for which less is compiled."""
    import jax

    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: first)
        yield


@pytest.fixture(autouse=True)
def untold():
    """What a command in the tests' process has begun to print is printed for its test alone."""
    from training.telling import logger

    yield
    logger.handlers, logger.propagate = [], True


@pytest.fixture
def shown(capsys):
    """capsys, where what the library tells is printed, as commands do it."""
    from training.telling import show

    show()
    return capsys


@pytest.fixture
def said():
    """The lines that the library tells, in their order."""
    from tests.listening import listening

    with listening() as lines:
        yield lines
