"""What scripts.launch makes, run in a real shell against stand-ins of gcloud and Slurm: words come through as given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.training.pods.launching.launched import AWKWARD, RUN, launch, looped, made


def stand_in(file: Path, code: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/usr/bin/env bash\n{code}\n")
    file.chmod(0o755)


def record(file: Path, more: str = "") -> None:
    """A stand-in that adds its arguments to calls beside it, a line of JSON."""
    code = "import json, sys; print(json.dumps(sys.argv[1:]), file=open(sys.argv.pop(), 'a'))"
    stand_in(file, f'"{sys.executable}" -c "{code}" "$@" "{file.parent}/calls"\n{more}')


def calls(folder: Path) -> list[list[str]]:
    lines = (folder / "calls").read_text("utf-8").splitlines() if (folder / "calls").exists() else []
    return [json.loads(line)[:-1] for line in lines]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A gcloud with one host, whose home is a folder here; `states` are what it says of the slice, one by one."""
    home, bin = tmp_path / "host", tmp_path / "bin"
    record(home / "base" / "bin" / "pegasus-zh", "exit 7")
    record(home / ".local" / "bin" / "uv")
    record(
        bin / "gcloud",
        f"""case "$4" in
describe) state="$(head -n1 "{tmp_path}/states")"; sed -i 1d "{tmp_path}/states"
  case "$state" in
  "") echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1 ;;
  "no login") echo "ERROR: $state" >&2; exit 1 ;;
  *) echo "$state" ;;
  esac ;;
scp) cp "$5" "$6" "{home}" ;;
ssh) for word in "$@"; do
  case "$word" in --command=*) HOME="{home}" bash -c "${{word#--command=}}" ;; esac
done ;;
esac""",
    )
    stand_in(bin / "sudo", f'case "$1" in tee) cat > "{home}/unit" ;; *) "$@" ;; esac')
    stand_in(
        bin / "systemctl",
        f"""case "$1" in
enable) cd "$(sed -n 's/^WorkingDirectory=//p' "{home}/unit")" || exit
  HOME="{home}" $(sed -n 's/^ExecStart=//p' "{home}/unit")
  echo $? > "{home}/status" ;;
is-active | disable) exit 3 ;;
show) cat "{home}/status" ;;
esac""",
    )
    stand_in(bin / "sleep", f'[ -s "{tmp_path}/states" ]')  # else it would be asked for ever
    for name in ("curl", "journalctl"):
        stand_in(bin / name, "echo true")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "pegasus_zh-0.1.0-py3-none-any.whl").touch()
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("states", "verbs"),
    [
        (["", "WAITING_FOR_RESOURCES", "ACTIVE"], "describe create describe describe"),
        (["ACTIVE", "ACTIVE"], "describe describe"),
        (["SUSPENDED", "ACTIVE"], "describe delete create describe"),
    ],
    ids=["new", "there", "taken away"],
)
def test_up_brings_the_words_to_the_training_unchanged(cloud, states, verbs):
    (cloud / "states").write_text("".join(f"{state}\n" for state in states))
    words = ["--name", "base", "--no-plan", "--", "scripts.pretrain", "--data", *AWKWARD, "--folder", "gs://b/r"]
    done = launch("tpu", "up", *words, cwd=cloud)
    assert done.returncode == 7, done.stderr  # what the loop ended with on the host
    assert [call[3] for call in calls(cloud / "bin")] == [*verbs.split(), "scp", "ssh", "ssh", "ssh", "ssh"]
    program = str(cloud / "host" / "base" / "bin" / "pegasus-zh")
    assert calls(cloud / "host" / "base" / "bin") == [looped(program, "--distributed")]
    (venv, install) = calls(cloud / "host" / ".local" / "bin")
    assert venv[0] == "venv" and venv[-1] == str(cloud / "host" / "base")
    assert install[-1] == f"pegasus-zh[tpu,gcs] @ file://{cloud}/host/pegasus_zh-0.1.0-py3-none-any.whl"


def test_up_ends_where_the_slice_cannot_be_had(cloud):
    (cloud / "states").write_text("\nFAILED\n")
    done = launch("tpu", "up", "--name", "base", "--no-plan", *RUN, cwd=cloud)
    assert (done.returncode, done.stderr) == (1, "error: base is FAILED\n")
    assert "scp" not in [call[3] for call in calls(cloud / "bin")]


@pytest.mark.parametrize("states", ["no login\n", "\nno login\n"])
def test_up_ends_where_nothing_is_known_of_the_slice(cloud, states):
    (cloud / "states").write_text(states)
    done = launch("tpu", "up", "--name", "base", "--no-plan", *RUN, cwd=cloud)
    assert (done.returncode, done.stderr) == (1, "ERROR: no login\n")
    verbs = [call[3] for call in calls(cloud / "bin")]
    assert verbs == ["describe"] + (["create", "describe"] if states.startswith("\n") else [])


def test_up_makes_nothing_of_what_does_not_fit(cloud):
    done = launch("tpu", "up", "--name", "base", *RUN, "--mesh.fsdp", "3", cwd=cloud)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and calls(cloud / "bin") == []


@pytest.mark.parametrize(("status", "again"), [(75, [["requeue", "12"]]), (0, []), (1, [])])
def test_slurm_queues_what_was_told_to_stop_again(tmp_path, monkeypatch, status, again):
    record(tmp_path / "env" / "bin" / "pegasus-zh", f"exit {status}")
    record(tmp_path / "bin" / "scontrol")
    stand_in(tmp_path / "bin" / "srun", '[ "$1 $2" = "--cpus-per-task=8 --wait=600" ] && shift 2 && "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    words = ["--", "scripts.pretrain", "--data", *AWKWARD, "--folder", "gs://b/r"]
    text = made("slurm", "--name", "base", "--nodes", "2", "--environment", "env", *words)
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    assert calls(tmp_path / "env" / "bin") == [looped("env/bin/pegasus-zh", "--distributed")]
    assert calls(tmp_path / "bin") == again


def test_skypilot_joins_the_hosts_and_passes_the_words_on(tmp_path):
    record(tmp_path / "base" / "bin" / "pegasus-zh", "env | grep ^JAX_ | sort")
    words = ["--", "scripts.pretrain", "--data", *AWKWARD, "--folder", "gs://b/r"]
    run = yaml.safe_load(made("skypilot", "--name", "base", "--nodes", "2", *words))["run"]
    hosts = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | hosts
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(["bash", "-c", run], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["JAX_COORDINATOR_ADDRESS=10.0.0.1:8476", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"]
    assert calls(tmp_path / "base" / "bin") == [looped(f"{tmp_path}/base/bin/pegasus-zh", "--distributed")]
