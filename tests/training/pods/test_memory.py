"""What the compiler says where a program does not fit, in one line."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from tests.training.pods.programs import V5E
from training.pods.memory import GIB, DoesNotFit, memory_of, refused
from training.step import TrainState

SAID = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (256.00G) exceeds available HBM (15.75G). HLO module: jit__lambda. See https://openxla.org/xla/errors/error_1000"
)
SAID_TOO = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.43G of 15.75G "
    "hbm. Exceeded hbm capacity by 1.68G.\n\nTotal hbm usage >= 17.93G:\n    reserved 512.00M"
)


@pytest.mark.parametrize(("said", "needed"), [(SAID, 256), (SAID_TOO, 17.43)])
def test_a_refusal_is_read(said, needed):
    found = refused(said)
    assert isinstance(found, DoesNotFit) and (found.needed, found.room) == (needed * GIB, 15.75 * GIB)
    assert str(found).startswith(
        f"does not fit: {needed:.2f} GiB a chip of 15.75, {needed - 15.75:.2f} too much; give fewer"
    )
    assert "\n" not in str(found)


def test_another_error_is_none():
    assert refused("INTERNAL: Mosaic failed to compile TPU kernel") is None


def test_kinds_add_up():
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        model={"w": jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=SingleDeviceSharding(jax.devices()[0]))},
        optimizer=(),
        key=jax.random.key(0),
    )
    found = memory_of(state, arguments=1000, temporaries=300, saved=200, chip=V5E)
    assert (found.parameters, found.optimizer, found.batch, found.saved, found.temporaries) == (512, 0, 488, 200, 100)
    assert found.all == 1300 and memory_of(state, 1000, 300, 400, V5E).all == 1300
