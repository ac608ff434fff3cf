"""How long a Pallas kernel takes on a TPU that is not here, by the schedule that the compiler makes.

A TensorCore issues instruction words (bundles) in order, so what is scheduled is what runs, but for waits on memory and
for the matrix units: these take a row of the left factor a cycle, while the scheduler issues a product of 16 rows every
11 or 12 bundles. So the bundles are replayed with the units' rate and a queue of two before each; of a product of two
matrices of 4096 x 4096 that gives 1.02 of the units' peak time, the bundles alone 0.79. Not seen are the pushes of
weights into the units, and waits on HBM: `bytes` over its rate, beside `cycles` over the clock, tells whether it hides.

Needs libtpu (the `tpu` extra), no TPU. The compilation has a process of its own: libtpu reads what it is to write down
before JAX is imported, and once.
"""

import collections
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ROWS = {"bf16": 16, "f32": 8}  # of a product's instruction, each a cycle of its matrix unit
QUEUE = 2  # products that may wait before a unit
BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+([A-Z]{2})?\+?\s*:\s*((?:>\s*)*)\{")
PRODUCT = re.compile(r"vmatmul\.(lmr\.)?(?:\w+\.)*?(bf16|f32)[\w.]*\.mxu(\d)")  # lmr: of half as many rows
SPILL = re.compile(r"= vst \[vmem:\[#allocation\d+_spill\]")


@dataclass(frozen=True)
class Schedule:
    """Of one kernel of a program."""

    name: str
    steps: int  # of its grid
    bundles: int  # a step, inner loops as often as they run
    cycles: int  # the same, with the matrix units' rate
    spills: int  # registers stored for want of room, a step
    bytes: int  # read from and written to HBM, by all steps

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.steps} steps of {self.cycles} cycles ({self.bundles} bundles, {self.spills} spills), "
            f"{self.bytes / 2**20:.1f} MiB of HBM"
        )


def schedule(f: Callable, *shapes: Any, topology: str = "v5e:2x2") -> list[Schedule]:
    """Of each Pallas kernel in `f`, a function of a module (or a partial of one), compiled for one chip of a topology
    and arguments like these (pytrees of ShapeDtypeStruct).

    Raises ValueError where it does not compile, with the compiler's last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = {"jf_dump_to": folder, "jf_dump_hlo_text": "true", "jf_dump_llo_text": "true"}
        environment = os.environ | {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another process may be compiling
            "JAX_PLATFORMS": "cpu",
            "LIBTPU_INIT_ARGS": " ".join(f"--xla_{name}={value}" for name, value in flags.items()),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):  # what is cached is not scheduled
            environment.pop(name, None)
        asked = pickle.dumps((f, shapes, topology, folder))
        program = [sys.executable, "-c", "from training.schedule import child; child()"]
        done = subprocess.run(program, input=asked, capture_output=True, env=environment)
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["it died without a word"]
            errors = [line for line in words if re.match(r"[\w.]+(Error|Exception)", line)] or words
            raise ValueError(f"no schedule for {topology}: {errors[-1]}")
        return pickle.loads((Path(folder) / "found").read_bytes())


def child() -> None:
    """What the process of its own does: from a pickle on its standard input to one in the folder of dumps."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    f, shapes, topology, folder = pickle.loads(sys.stdin.buffer.read())
    device = topologies.get_topology_desc(topology, platform="tpu").devices[0]
    mesh = Mesh(np.array(device).reshape(1, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Explicit,) * 3)
    here = NamedSharding(mesh, PartitionSpec())
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
    with jax.set_mesh(mesh):
        traced = jax.jit(f).trace(*like)
        traced.lower().compile()
    found = [_read(call, Path(folder)) for call in _calls(traced.jaxpr.jaxpr)]
    (Path(folder) / "found").write_bytes(pickle.dumps(found))


def replay(bundles: list[str]) -> int:
    """Cycles of these bundles, issued in order, with each matrix unit's rate and queue."""
    time, queues = 0, collections.defaultdict[str, list[int]](list)
    for bundle in bundles:
        for half, kind, unit in PRODUCT.findall(bundle):
            ends = queues[unit] = [end for end in queues[unit] if end > time]
            if len(ends) >= QUEUE:
                time = ends[-QUEUE]
                ends = queues[unit] = [end for end in ends if end > time]
            ends.append(max([time, *ends]) + ROWS[kind] // (2 if half else 1))
        time += 1
    return time


def _read(call: Any, folder: Path) -> Schedule:
    name, grid = str(call.params["name"]), call.params["grid_mapping"].grid
    files = [p for p in folder.glob(f"*-{name}*-final_bundles.txt") if "schedule-analysis" not in p.name]
    if len(files) != 1:
        raise ValueError(f"{len(files)} kernels are called {name}: each needs a name of its own")
    outside, loops = _loops_of(files[0].read_text("utf-8"))
    lengths = _lengths(call.params["jaxpr"])
    if len(loops) != len(lengths):
        raise ValueError(f"{name} has {len(lengths)} loops, and its schedule {len(loops)}: there is no reading it")
    bundles = cycles = spills = 0
    for block, times in zip([outside, *loops], [1, *lengths], strict=True):
        bundles, cycles = bundles + times * len(block), cycles + times * replay(block)
        spills += times * sum(len(SPILL.findall(text)) for text in block)
    moved = sum(_moved(b, grid) for b in call.params["grid_mapping"].block_mappings)
    return Schedule(name, math.prod(grid), bundles, cycles, spills, moved)


def _loops_of(text: str) -> tuple[list[str], list[list[str]]]:
    """The bundles of a step of the grid, and those of each of its own loops: from where one begins to its last bundle,
    among which are some of what follows, done in the last turn alone."""
    bundles: list[tuple[str, int, str]] = []
    for line in text.splitlines():
        if match := BUNDLE.match(line):
            bundles.append((match[1] or "", match[2].count(">"), line))
        elif bundles:
            bundles[-1] = *bundles[-1][:2], bundles[-1][2] + line
    begins = [n for n, (mark, depth, _) in enumerate(bundles) if mark == "LB" and depth > 1]
    outside, loops, done = [], [], 0
    for begin, beyond in pairwise([*begins, len(bundles)]):
        end = max(n for n in range(begin, beyond) if bundles[n][1] > 1) + 1
        outside += bundles[done:begin]
        loops.append([line for _, _, line in bundles[begin:end]])
        done = end
    return [line for _, depth, line in [*outside, *bundles[done:]] if depth], loops


def _calls(jaxpr: Any) -> list[Any]:
    """The Pallas calls whose results are used, here and in what is called."""
    from jax.extend.core import jaxprs_in_params

    found, read = [], {id(v) for v in jaxpr.outvars} | {id(v) for e in jaxpr.eqns for v in e.invars}
    for e in jaxpr.eqns:
        if e.primitive.name != "pallas_call":
            found += [call for inner in jaxprs_in_params(e.params) for call in _calls(inner)]
        elif any(id(v) in read for v in e.outvars):
            found.append(e)
    return found


def _lengths(jaxpr: Any) -> list[int]:
    """How often each of a kernel's own loops runs, in their order."""
    return [e.params["length"] for e in jaxpr.eqns if e.primitive.name == "scan"]


def _moved(mapping: Any, grid: tuple[int, ...]) -> int:
    """Bytes of an operand or result that all steps move: a block is moved where its index changes."""
    import jax
    import numpy as np

    steps = np.indices(grid).reshape(len(grid), -1).astype(np.int32)
    closed = mapping.index_map_jaxpr
    places = jax.vmap(lambda *at: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *at))(*steps)
    index = np.stack([np.broadcast_to(i, steps.shape[1]) for i in places])
    changes = 1 + np.any(np.diff(index), axis=0).sum()
    size = math.prod(getattr(n, "block_size", 1) for n in mapping.block_shape)
    return int(changes) * size * mapping.array_aval.dtype.itemsize
