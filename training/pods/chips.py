"""TPU chips by their published figures: what a product, the memory and the links between chips can do at most."""

from dataclasses import dataclass

import jax

from training.peaks import PEAKS

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Chip:
    name: str
    peak: float  # FLOP/s, dense bfloat16
    units: int  # that multiply matrices, of all of the chip's cores
    side: int  # of such a unit: side x side multiply-adds a clock cycle
    hbm: float  # bytes that a program may have, as the compiler's refusals name them
    hbm_rate: float  # bytes/s
    link: float  # bytes/s one way over one link to a neighbour; there are two links a dimension of the torus
    closed: int  # a dimension of the slice that is a multiple of it closes to a ring
    network: float  # bytes/s one way between slices
    cores: int = 1  # that share a program: of a Pallas kernel each runs half of the grid

    @property
    def clock(self) -> float:
        """Hz: what the compiler's cycles are of."""
        return self.peak / (2 * self.units * self.side**2)


GIB = 2**30
# https://docs.cloud.google.com/tpu/docs/ v4, v5e, v5p-training and v6e, but hbm, which the compiler's refusals name.
# A link: a chip's bidirectional bandwidth over twice its links, four in a plane and six in space. Of v4 no rate between
# slices is published: the least of the others.
CHIPS = {
    "TPU v4": Chip(
        name="v4",
        peak=PEAKS["TPU v4"],
        units=2 * 4,
        side=128,
        hbm=30.75 * GIB,
        hbm_rate=1200 * GB,
        link=50 * GB,
        closed=4,
        network=3.125 * GB,
        cores=2,
    ),
    "TPU v5 lite": Chip(
        name="v5e",
        peak=PEAKS["TPU v5 lite"],
        units=4,
        side=128,
        hbm=15.75 * GIB,
        hbm_rate=819 * GB,
        link=50 * GB,
        closed=16,
        network=3.125 * GB,
    ),
    "TPU v5": Chip(
        name="v5p",
        peak=PEAKS["TPU v5"],
        units=2 * 4,
        side=128,
        hbm=95.73 * GIB,
        hbm_rate=2765 * GB,
        link=100 * GB,
        closed=4,
        network=6.25 * GB,
        cores=2,
    ),
    "TPU v6 lite": Chip(
        name="v6e",
        peak=PEAKS["TPU v6 lite"],
        units=2 * 2,
        side=256,
        hbm=31.24 * GIB,
        hbm_rate=1638 * GB,
        link=100 * GB,
        closed=16,
        network=12.5 * GB,
    ),
}


def chip_of(device: jax.Device) -> Chip:
    """The chip that a device is. Raises ValueError for one without figures here."""
    if device.device_kind not in CHIPS:
        raise ValueError(
            f"no figures of {device.device_kind!r}: they are of {', '.join(CHIPS)} (training/pods/chips.py)"
        )
    return CHIPS[device.device_kind]
