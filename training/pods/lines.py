"""The line of the model that an operation is of, in words, and the part of the step it runs in.

Names come from `jax.named_scope` in the models and in the step; where there is none, from the primitive.
"""

import re
from typing import Literal

Phase = Literal["forward", "backward", "recomputed", "outside"]
PHASES: tuple[Phase, ...] = ("forward", "recomputed", "backward", "outside")

# A name in an operation's path -> what it is called. The innermost counts.
SCOPES = {
    "attention": "attention: other",
    "BTNH,BSNH->BNTS": "attention: scores",
    "softmax": "attention: bias, mask, softmax",
    "BNTS,BSNH->BTNH": "attention: weights x values",
    "bias": "attention: bias, mask, softmax",
    "projections": "attention: projections",
    "feed_forward": "feed-forward",
    "norm": "norms",
    "embedding": "embedding",
    "loss": "head and loss",
    "optimizer": "optimizer",
    "dropout": "dropout",
}
LAYOUT = "layout copies"
COLLECTIVES = "collectives"
NETWORK = "between slices"
COPIES = "waits for copies between HBM and the core"
STACKING = "stacking of residuals"
_STACKED = {"dynamic_update_slice", "dynamic_slice", "dynamic_index_in_dim", "dynamic_update_index_in_dim"}


def line_of(op_name: str, opcode: str) -> str:
    """What the table calls it."""
    if opcode in ("copy", "transpose", "reshape", "bitcast-convert"):
        return LAYOUT
    parts = re.split(r"[/()]+", op_name)
    last = parts[-1] if parts else ""
    if last == "pallas_call":
        return f"kernel {parts[-2]}"
    if "while" in parts and _STACKED & {*parts[-3:]}:
        return STACKING
    scope = next((SCOPES[part] for part in reversed(parts) if part in SCOPES), None)
    if scope:
        return scope
    if last.startswith(("dot_general", "conv_general_dilated")):
        return "other products"
    return "residual stream and other elementwise"


def phase_of(op_name: str) -> Phase:
    """Forward where it is differentiated, backward where that is transposed, outside where neither is: once a step, as
    the optimizer, but weights collected and stacks filled with zeros too."""
    if "rematted_computation" in op_name:
        return "recomputed"
    if "transpose(" in op_name:
        return "backward"
    return "forward" if "jvp(" in op_name else "outside"
