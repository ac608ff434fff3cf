"""What the flash kernel costs on a TPU that is not here, by the compiler's schedule: `make aot`."""

import pytest

from benchmarks.flash import Config, cost

MOST = {  # cycles per row and head, forwards and backwards
    "T5's encoder": ({}, (1400, 3200)),
    "rotary": ({"bias": False, "rotary": True}, (1600, 3200)),
    "with dropout": ({"dropout": 0.1}, (1500, 3600)),
    "2,048 positions": ({"queries": 2048, "keys": 2048, "rows": 8}, (1.4 * 16 * 1024, 1.4 * 16 * 2560)),
}


@pytest.mark.parametrize("case", MOST)
def test_cycles_a_row_and_head(case):
    given, most = MOST[case]
    found = cost(Config(**given))
    print()
    for (kernel, cycles, floor), limit in zip(found, most, strict=True):
        print(f"{case}, {kernel}: {cycles:.0f} cycles a row and head, {cycles / floor:.2f} of the floor")
        assert floor < cycles < limit
