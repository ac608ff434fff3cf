"""gcloud's command lines for slices of TPU hosts, as scripts for bash.

Queued resources and their states: https://docs.cloud.google.com/tpu/docs/queued-resources; several slices (node-count):
https://docs.cloud.google.com/tpu/docs/multislice-introduction; flags: gcloud compute tpus queued-resources --help.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal

import tyro

from training.flags import FLAT
from training.pods.launching.accelerators import Slice, slice_named
from training.pods.launching.job import Job, Work, check_folder, check_wheel, check_words, extras, looped, shell

Action = Literal["up", "logs", "stop", "delete"]


@dataclass(frozen=True, kw_only=True)
class TpuConfig:
    action: tyro.conf.Positional[Action]
    """up: get the slices, install, start and follow; again, it starts anew what has ended or was taken away. logs:
    follow. stop: save and end the training; the slices stay, and cost. delete: give them back."""
    job: Annotated[Job, FLAT]
    accelerator: str = "v5litepod-16"
    """Of each slice, as gcloud calls it."""
    slices: int = 1
    """So many of it, each a replica (--mesh.replica)."""
    spot: bool = False
    """Cheaper, and may be taken away at any time."""
    zone: str | None = None
    """By default gcloud's own."""
    project: str | None = None
    """By default gcloud's own."""
    runtime: str | None = None
    """The machines' software; by default what goes with the accelerator."""
    wheel: str = "dist/pegasus_zh-0.1.0-py3-none-any.whl"
    """This project as python -m pip wheel --no-deps -w dist . makes it."""
    plan: bool = True
    """First see by scripts.plan whether the training fits."""
    follow: bool = True
    """Show what the first host says until the training ends; Ctrl-C ends the showing alone."""
    slice: tyro.conf.Suppress[Slice] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "slice", slice_named(self.accelerator))
        check_words(self)
        check_wheel(self.wheel)
        if self.slices < 1:
            raise ValueError(f"slices is {self.slices}: it must be 1 or more")


INSTALL = """\
curl -LsSf https://astral.sh/uv/install.sh | sh &&
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/{name} &&
~/.local/bin/uv pip install --quiet --python ~/{name}/bin/python --reinstall-package pegasus-zh \\
  "pegasus-zh[{extras}] @ file://$HOME/{wheel}"
"""  # uv brings a Python, for that of Ubuntu 22.04 is older than JAX takes
STOP = "sudo systemctl disable --now training-{name} 2>/dev/null || true"
# A unit of systemd survives the end of ssh, as tmux and nohup do, and the machine's next start; and its stop, or the
# machine's, is a SIGTERM to the loop alone (KillMode=mixed), and time to save. A training killed for want of memory is
# the loop's to start again (OOMPolicy). The words of the training are in a file,
# for systemd would expand their $ and %. https://www.freedesktop.org/software/systemd/man/latest/systemd.kill.html
START = """\
sudo tee /etc/systemd/system/training-{name}.service > /dev/null << END
[Unit]
Wants=network-online.target
After=network-online.target
[Service]
User=$(id -un)
WorkingDirectory=$HOME
ExecStart=/bin/bash $HOME/{name}.sh
KillMode=mixed
OOMPolicy=continue
TimeoutStopSec=300
[Install]
WantedBy=multi-user.target
END
sudo systemctl daemon-reload
sudo systemctl enable --quiet --now training-{name}
"""
FOLLOW = """\
sudo journalctl --quiet --no-hostname --follow --lines=100 --unit=training-{name} & follower=$!
while systemctl is-active --quiet training-{name}; do sleep 5; done
sleep 2
sudo kill "$follower"
exit "$(systemctl show --property=ExecMainStatus --value training-{name})"
"""
UP = """\
set -euo pipefail
{plan}errors="$(mktemp)"
state() {{
  {describe} 2> "$errors" && return
  if grep -q NOT_FOUND "$errors"; then
    echo none
  else
    cat "$errors" >&2
    return 1
  fi
}}
now="$(state)"
case "$now" in
  SUSPENDING | SUSPENDED | FAILED)  # it was taken away, and never comes back
    {delete}
    now=none ;;
esac
if [ "$now" = none ]; then
  {create}
fi
while now="$(state)" || exit; [ "$now" != ACTIVE ]; do
  case "$now" in
    SUSPENDING | SUSPENDED | FAILED | DELETING)
      echo "error: {name} is $now" >&2
      exit 1 ;;
  esac
  echo "{name}: $now"
  sleep 30
done
costs() {{
  echo {costs} >&2
}}
trap costs EXIT
mkdir -p runs/launch
cat > runs/launch/{name}.sh <<'END_OF_SCRIPT'
#!/usr/bin/env bash
exec {looped}
END_OF_SCRIPT
{copy}
{install}
{stop}
{start}
"""


def script(config: TpuConfig, work: Work | None, planner: Sequence[str] = ("python", "-m", "scripts.plan")) -> str:
    """What the action runs. planner: how scripts.plan is called here. Raises ValueError for what cannot be."""
    name = config.job.name
    follow = _ssh(config, FOLLOW.format(name=name), all=False)
    if config.action == "delete":
        return _gcloud(config, "delete", "--force", "--quiet") + "\n"
    if config.action == "stop":
        return _ssh(config, STOP.format(name=name)) + "\n"
    if config.action == "logs":
        return follow + "\n"
    if work is None:
        raise ValueError("no training: give it after --, such as -- scripts.pretrain --preset t5-pegasus-base")
    hosts = config.slice.hosts * config.slices
    check_folder(work, hosts, shared=False, kept=not config.spot)
    back = shell(["pegasus-zh", "launch", "tpu", "delete", "--name", name, *_where(config)])
    install = INSTALL.format(name=name, extras=extras(work, "tpu", "gcs"), wheel=PurePath(config.wheel).name)
    return UP.format(
        name=name,
        costs=shlex.quote(f"{name} costs until it is given back: {back}"),
        plan=_plan(config, work, planner) + "\n" if config.plan else "",
        describe=_gcloud(config, "describe", "--format=value(state.state)"),
        delete=_gcloud(config, "delete", "--force", "--quiet"),
        create=_gcloud(config, "create", *_made_of(config)),
        looped=looped(work, hosts, f'"$HOME/{name}/bin/pegasus-zh"'),
        copy=_copy(config),
        install=_ssh(config, install),
        stop=_ssh(config, STOP.format(name=name)),
        start=_ssh(config, START.format(name=name)),
    ) + (follow + "\n" if config.follow else "")


def _plan(config: TpuConfig, work: Work, planner: Sequence[str]) -> str:
    slices = ["--slices", str(config.slices)] if config.slices > 1 else []
    here = ["--topology", config.slice.topology, *slices]
    arguments = (word for word in work.arguments if word != "--distributed")
    return shell([*planner, work.plan, *here, *arguments])


def _made_of(config: TpuConfig) -> list[str]:
    name = config.job.name
    nodes = [f"--node-count={config.slices}", f"--node-prefix={name}"] if config.slices > 1 else [f"--node-id={name}"]
    return [
        f"--accelerator-type={config.accelerator}",
        f"--runtime-version={config.runtime or config.slice.kind.runtime}",
        *nodes,
        *(["--spot"] if config.spot else []),
    ]


def _gcloud(config: TpuConfig, verb: str, *flags: str) -> str:
    return shell(["gcloud", "compute", "tpus", "queued-resources", verb, config.job.name, *_where(config), *flags])


def _where(config: TpuConfig) -> list[str]:
    return [f"--{x}={value}" for x, value in (("project", config.project), ("zone", config.zone)) if value]


def _ssh(config: TpuConfig, command: str, all: bool = True) -> str:
    return _gcloud(config, "ssh", *(ALL if all else ()), f"--command={command}")


def _copy(config: TpuConfig) -> str:
    name = config.job.name
    files = [config.wheel, f"runs/launch/{name}.sh", f"{name}:"]
    return shell(["gcloud", "compute", "tpus", "queued-resources", "scp", *files, *_where(config), *ALL])


ALL = ("--worker=all", "--node=all", "--batch-size=all")
