"""Texts of programs that libtpu has compiled, and chips to read them for."""

from pathlib import Path

import numpy as np

from training.pods.chips import CHIPS
from training.pods.collectives import Slice
from training.pods.program_text import ProgramText, read_program

HERE = Path(__file__).parent
V5E = CHIPS["TPU v5 lite"]
# A product of 4096^3 in bfloat16.
PRODUCT = read_program((HERE / "product_v5e.txt").read_text("utf-8"))
# One attention without softmax (8 rows a chip, 4 heads, 128 positions, head size 128), then six layers of 512 x 512,
# their weights cut over two chips and recomputed, gradient and update; rows over all four.
LAYERS = read_program((HERE / "layers_v5e_2x2.txt").read_text("utf-8"))
# Of a send and its recv between slices: a name, and what of.
TRANSFER = """is_host_transfer=true, frontend_attributes={{_xla_host_transfer_handler_name="xla_megascale_runtime",\
_xla_host_transfer_rendezvous="{0}.1_0",_xla_megascale_transfer_type="{1}"}}"""


def slice_(sides: tuple[int, ...], slices: int = 1, chip=V5E) -> Slice:
    places = np.array([index[::-1] for index in np.ndindex(*sides[::-1])])
    return Slice(
        chip=chip,
        places=np.concatenate([places] * slices),
        slices=np.repeat(np.arange(slices), len(places)),
        sides=sides,
    )


def program(*lines: str, computations: str = "") -> ProgramText:
    """Of these instructions."""
    body = "".join(f"  {line}\n" for line in lines)
    return read_program(f"HloModule made\n\n{computations}ENTRY %main (a: f32[8]) -> f32[8] {{\n{body}}}\n")
