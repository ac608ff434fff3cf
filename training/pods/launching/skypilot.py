"""A task for SkyPilot: https://docs.skypilot.co/en/latest/reference/yaml-spec.html."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from textwrap import indent
from typing import Annotated

from training.command import STOPPED
from training.flags import FLAT
from training.pods.launching.accelerators import slice_named
from training.pods.launching.job import Job, Work, check_folder, check_wheel, check_words, extras, looped
from training.pods.launching.jobset import quoted


@dataclass(frozen=True, kw_only=True)
class SkyPilotConfig:
    job: Annotated[Job, FLAT]
    accelerators: str = "H100:8"
    """Of each host, as SkyPilot calls them; or one slice of TPUs, such as tpu-v5litepod-16."""
    nodes: int = 1
    """Hosts of GPUs. A slice of TPUs has its own."""
    infra: str | None = None
    """Where, such as gcp/us-central1; by default wherever it is cheapest."""
    spot: bool = False
    """Cheaper, and may be taken away: sky jobs launch begins anew elsewhere."""
    wheel: str = "dist/pegasus_zh-0.1.0-py3-none-any.whl"
    """This project as python -m pip wheel --no-deps -w dist . makes it."""

    def __post_init__(self):
        check_words(self)
        check_wheel(self.wheel)
        if not re.fullmatch(r"[\w.-]+(:\d+)?", self.accelerators):
            raise ValueError(f"accelerators is {self.accelerators!r}: give a name and a number, such as H100:8")
        if self.nodes < 1 or (self.nodes > 1 and self.is_tpu):
            raise ValueError(f"nodes is {self.nodes}: it must be 1 or more, and 1 of a slice of TPUs")

    @property
    def is_tpu(self) -> bool:
        return self.accelerators.startswith("tpu-")


TASK = """\
name: {name}
num_nodes: {nodes}
resources:
  accelerators: {accelerators}
{more}  use_spot: {spot}
  job_recovery:
    max_restarts_on_errors: 3
    recover_on_exit_codes: [{stopped}]
file_mounts:
  ~/{wheel}: {source}
setup: |
{setup}
run: |
{run}
"""
SETUP = """\
set -e
curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/{name}
~/.local/bin/uv pip install --quiet --python ~/{name}/bin/python --reinstall-package pegasus-zh \\
  "pegasus-zh[{extras}] @ file://$HOME/{wheel}"
"""
# A process a host; on TPUs JAX finds them by itself.
JOIN = """\
JAX_COORDINATOR_ADDRESS="$(head -n1 <<< "$SKYPILOT_NODE_IPS"):8476"
export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES="$SKYPILOT_NUM_NODES" JAX_PROCESS_ID="$SKYPILOT_NODE_RANK"
"""


def task(config: SkyPilotConfig, work: Work) -> str:
    """Raises ValueError for what cannot be."""
    name, wheel, more = config.job.name, PurePath(config.wheel).name, ""
    hosts = config.nodes
    if config.is_tpu:
        slice = slice_named(config.accelerators.removeprefix("tpu-").partition(":")[0])
        hosts, more = slice.hosts, f"  accelerator_args:\n    runtime_version: {slice.kind.runtime}\n"
    check_folder(work, hosts, shared=False, kept=False)
    join = JOIN if hosts > 1 and not config.is_tpu else ""
    setup = SETUP.format(name=name, extras=extras(work, "tpu" if config.is_tpu else "cuda", "gcs"), wheel=wheel)
    return TASK.format(
        name=name,
        nodes=config.nodes,
        accelerators=config.accelerators,
        more=more + (f"  infra: {quoted(config.infra)}\n" if config.infra else ""),
        spot=str(config.spot).lower(),
        stopped=STOPPED,
        wheel=wheel,
        source=quoted(config.wheel),
        setup=indent(setup, "  ").rstrip(),
        run=indent(f"{join}exec " + looped(work, hosts, f'"$HOME/{name}/bin/pegasus-zh"'), "  "),
    )
