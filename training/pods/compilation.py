"""A step compiled for TPUs that are not here, and what the compiler said, kept for the next time it is asked."""

import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import zlib
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from training.files.atomic import write_bytes
from training.mesh import MeshConfig, make_mesh
from training.pods.bundles import Block, Schedule
from training.pods.memory import DoesNotFit, refused
from training.pods.schedules import FLAGS, read_schedules
from training.telling import tell

# For libtpu, before it is loaded. It else takes a lock, for TPUs that are there, and refuses a second process on the
# machine; and it asks the network what machine it is on, and complains that nobody knows.
WITHOUT_TPU = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}

KEPT = "3"  # the format of what is kept
NAMES = "names are like v4:2x2x1, v5e:4x4, v5p:2x2x2 or v6e:8x8"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    text: str  # of the program
    arguments: int  # bytes a chip: parameters, optimizer's state, batch
    temporaries: int  # bytes a chip: what else it needs at its peak
    schedules: dict[str, Schedule]  # by operation


@cache
def _schedules() -> tempfile.TemporaryDirectory:
    """Where libtpu writes its schedules: it reads this once, when it is loaded."""
    folder = tempfile.TemporaryDirectory()
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = f"{given} {' '.join(FLAGS)}{folder.name}".strip()
    return folder


def tpu_mesh(topology: str, config: MeshConfig, slices: int = 1) -> Mesh:
    """The mesh over so many TPU slices that are not here, such as v5e:4x4 each.
    ValueError where libtpu is missing or knows it not."""
    if not re.fullmatch(r"\w+:[1-9]\d*(x[1-9]\d*)+", topology):  # of 0x0 libtpu dies, of nothing it makes a slice
        raise ValueError(f"no TPU topology {topology!r}: {NAMES}")
    for name, value in WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
    _schedules()
    kinds: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if topology.startswith("v4:"):
        kinds["chip_config_name"] = "megacore"  # a chip's two cores as one device, as they are there
    try:
        devices = topologies.get_topology_desc(topology, platform="tpu", **kinds).devices
    except Exception as error:
        raise ValueError(_reason(topology, error)) from error
    return make_mesh(config, list(devices))


def one_chip(topology: str) -> Mesh:
    """The mesh of one chip of such a slice, where what a device does is looked at. ValueError as `tpu_mesh` has it."""
    mesh = tpu_mesh(topology, MeshConfig())
    return Mesh(mesh.devices.reshape(-1)[:1].reshape(1, 1, 1), mesh.axis_names, axis_types=mesh.axis_types)


def _reason(topology: str, error: Exception) -> str:
    """One line: libtpu is missing, or it does not know the slice."""
    if "not installed" in str(error):
        return "libtpu, the compiler for TPUs, is missing: `make plan ARGS=…` installs it"
    said = str(error).splitlines()[0][:120]
    return f"no TPU topology {topology!r} ({said}): {NAMES}"


def compiler() -> str:
    """Versions of all that a compiled program depends on, and the flags that the user gives the compiler."""
    beside = Path(os.environ.get("TPU_LIBRARY_PATH", "")).absolute().parent.parent  # where libtpu may lie apart
    found = distributions(name="libtpu", path=[str(beside), *sys.path])
    given = [os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")]
    flags = [flag for flag in " ".join(given).split() if not flag.startswith(FLAGS)]  # ours name a folder of the moment
    return " ".join([f"jax {jax.__version__}, libtpu {next((one.version for one in found), 'unknown')}", *flags])


def compile_kept(lowered: jax.stages.Lowered, mesh: Mesh, options: dict, kept: Path | None) -> Compiled:
    """Compiles, or reads from the folder `kept` what was compiled of the same program for the same chips.
    Raises DoesNotFit where the compiler refuses for want of memory, ValueError where it does not tell what is asked."""
    devices = [f"{device.device_kind} {getattr(device, 'coords', '')}" for device in mesh.devices.flat]
    # Names of operations too, by which their time is told; not the lines of the sources, which any change moves.
    names = sorted({*re.findall(r'loc\("([^"]+)"\(', lowered.as_text(debug_info=True))})
    identity = "\n".join([lowered.as_text(), *names, *devices, str(sorted(options.items())), *FLAGS, KEPT, compiler()])
    file = None if kept is None else kept / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json.gz"
    found = None if file is None or not file.exists() else _read(file)
    if found is None:
        found = _compile(lowered, options)
        if file is not None:
            write_bytes(file, gzip.compress(json.dumps(found).encode(), 6))
    if "refused" in found:
        raise DoesNotFit(**found["refused"])
    schedules = {
        name: Schedule(Block(*once), Block(*step), [Block(*loop) for loop in loops])
        for name, (once, step, loops) in found["schedules"].items()
    }
    return Compiled(**found | {"schedules": schedules})


def _read(file: Path) -> dict | None:
    """What is kept there; None, which is told, where the file is damaged."""
    try:
        found = json.loads(gzip.decompress(file.read_bytes()))
        if {*found} not in ({"refused"}, {field.name for field in fields(Compiled)}):
            raise ValueError("other fields")
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, TypeError) as error:
        tell(f"{file}: damaged ({error}), so the program is compiled again")
        return None
    return found


def _compile(lowered: jax.stages.Lowered, options: dict) -> dict:
    folder = Path(_schedules().name)
    shutil.rmtree(folder)  # of a program that was compiled before
    folder.mkdir()
    written = {"xla_dump_to": str(folder), "xla_dump_hlo_as_text": True}
    try:
        compiled = lowered.compile(compiler_options=options | written)
    except jax.errors.JaxRuntimeError as error:
        if (refusal := refused(str(error))) is None:
            raise
        return {"refused": {"needed": refusal.needed, "room": refusal.room}}
    memory, text = compiled.memory_analysis(), _text(compiled, folder)
    if memory is None or text is None:
        raise ValueError("the compiler does not tell what the program needs")
    return asdict(
        Compiled(
            text=text,
            arguments=memory.argument_size_in_bytes,
            temporaries=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
            schedules=read_schedules(folder),
        )
    )


def _text(compiled: jax.stages.Compiled, folder: Path) -> str | None:
    """What the compiler has written to the folder, where it runs a part on SparseCores, as on v5p: jaxlib 0.10.2 does
    not read that (async-update of several operands)."""
    written = (file.read_text("utf-8") for file in folder.glob("*.after_codegen.txt"))
    return next((text for text in written if 'execution_thread="sparsecore"' in text), None) or compiled.as_text()
