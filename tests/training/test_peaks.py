"""One table of peaks, which a training's MFU, a plan's and a benchmark's are over."""

import pytest

from training.peaks import PEAKS, peak
from training.pods.chips import CHIPS


@pytest.mark.parametrize("kind", PEAKS)
def test_every_name_is_its_own(kind):
    assert peak(kind) == peak(kind.upper()) == PEAKS[kind]


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", None),  # no L4
        ("NVIDIA H20", None),  # no H200
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),  # a seventh of it
        ("NVIDIA GeForce RTX 4090", None),
        ("TPU v7x", None),
        ("cpu", None),
        ("", None),
    ],
)
def test_the_longest_name_counts_by_whole_words(kind, most):
    assert peak(kind) == most


def test_chips_have_the_same():
    assert all(chip.peak == peak(kind) == peak(f"TPU {chip.name}") for kind, chip in CHIPS.items())
