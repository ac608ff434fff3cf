"""A plan as text: a row that a machine reads, a line of the model each, two plans side by side."""

import pytest

from tests.training.pods.programs import LAYERS, slice_
from training.pods.memory import GIB
from training.pods.roofline import roofline
from training.pods.table import against, breakdown, heading, known, memory, network, row


def told(times: float = 1.0) -> dict:
    found = roofline(LAYERS, slice_((2, 2, 1)))
    seconds = found.seconds * times
    return {
        "name": "layers",
        "slice": "v5e:2x2",
        "mesh": [2, 2, 1],
        "rows": 8,
        "memory": {
            "parameters": GIB,
            "optimizer": 2 * GIB,
            "batch": 0,
            "temporaries": GIB,
            "hbm": 15.75 * GIB,
            "all": 4 * GIB,
        },
        "seconds": seconds,
        "estimated_seconds": 2 * seconds,
        "bound": seconds / 4,
        "mfu": 0.25,
        "lines": [line | {"seconds": {p: times * s for p, s in line["seconds"].items()}} for line in found.lines()],
        "known": found.known(),
        "network": found.network(),
        "unknown_loops": 0,
        "unmeasured_kernels": 0,
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_for_a_machine():
    shown = dict(zip(cells(heading().splitlines()[0]), cells(row(told())), strict=True))
    ms = 1e3 * told()["seconds"]
    assert shown == {
        "training": "layers",
        "slice": "v5e:2x2",
        "mesh": "2 x 2 x 1",
        "rows a chip": "8",
        "GiB a chip": "4.00",
        "step, ms": f"{ms:.3f}",
        "bound, ms": f"{ms / 4:.3f}",
        "MFU": "25.0%",
        "by estimated_cycles: ms": f"{2 * ms:.3f}",
        "MFU by it": "12.5%",
    }


def test_lines_add_up():
    shown = [cells(line) for line in breakdown(told(1000.0)).splitlines()]
    head, body, whole = shown[0], shown[2:-1], shown[-1]
    column = head.index("in all")
    assert float(whole[column]) == pytest.approx(sum(float(line[column]) for line in body), abs=0.05 * len(body))
    assert {"forward", "recomputed", "backward"} <= {*head} and whole[0] == "in all"
    assert next(line for line in body if line[0] == "feed-forward")[-1].startswith("products")


def test_memory_and_how_times_are_known():
    first = "4.00 GiB of 15.75 GiB a chip, 11.75 GiB left: 1.00 GiB parameters, 2.00 GiB optimizer, 0.0 MiB batch"
    assert memory(told()).startswith(first)
    small = told()
    small["memory"] |= {"parameters": 7.25 * GIB / 1024, "all": 0.05 * GIB}
    assert memory(small).startswith("51.2 MiB of 15.75 GiB a chip, 15.70 GiB left: 7.2 MiB parameters, 2.00 GiB")
    assert dict(zip(cells(heading().splitlines()[0]), cells(row(small)), strict=True))["GiB a chip"] == "0.0500"
    (line,) = (line for line in against(small, told()).splitlines() if line.startswith("| GiB a chip"))
    assert cells(line)[1:] == ["0.0500", "4.00", "-3.95"]
    says = known(told())
    assert "by the compiler's cycles: 21 in" in says and "collectives by the links' rates: 4 in" in says


def test_what_crosses_between_slices():
    assert network(told()) == ""
    two = told() | {"seconds": 0.1, "network": {"bytes": 3 * 2**20, "rate": 3.125e9, "busy": 0.012, "seconds": 0.002}}
    assert network(two) == (
        "between slices each chip sends 3.0 MiB a step, 12.0 ms at 3.125 GB/s; the step waits for 2.0 ms of it, 2.0% "
        "of its time, and would for 10.9% if nothing hid"
    )


def test_side_by_side():
    shown = {cells(line)[0]: cells(line)[1:] for line in against(told(2000.0), told(1000.0)).splitlines()}
    here, there, difference = map(float, shown["step"])
    assert here == pytest.approx(2 * there, rel=1e-3) and difference == pytest.approx(there, rel=1e-3)
    assert shown["MFU"][-1] == "+0.0 points" and shown["GiB a chip"][-1] == "+0.00"
