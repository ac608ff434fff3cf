"""What a device's matrix units can do at most: dense bfloat16, FLOP/s, as the makers' data sheets have it."""

# By the device's kind, as XLA and nvidia-smi name it; more words may follow ("NVIDIA H100 80GB HBM3").
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,  # XLA's name of the v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}


def peak(kind: str) -> float | None:
    """Of the longest name whose words the kind begins with; None of one that is not known, and of a part of a GPU."""
    words = kind.lower().replace("-", " ").split()  # NVIDIA A100-SXM4-80GB
    known = [name for name in PEAKS if words[: len(name.split())] == name.lower().split()]
    return PEAKS[max(known, key=len)] if known and "mig" not in words else None
