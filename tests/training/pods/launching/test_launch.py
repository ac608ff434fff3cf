"""What scripts.launch makes, as whole texts, held against what is to read them; and what it refuses.

PYTHONPATH=. python tests/training/pods/launching/test_launch.py writes the whole texts anew, to see what changed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts import plan
from scripts.launch import TRAININGS
from tests.training.pods.launching.launched import AWKWARD, BASE, ROOT, RUN, launch, looped, made
from training.pods.launching import tpu
from training.pods.launching.accelerators import SLICES, slice_named
from training.pods.launching.job import Job, Work, check_folder
from training.pods.launching.jobset import JobSetConfig
from training.pods.launching.skypilot import SkyPilotConfig
from training.pods.launching.slurm import SlurmConfig
from training.pods.launching.tpu import TpuConfig

HERE = Path(__file__).parent
ONE = Work(("pretrain",), ("--folder", "gs://b/r"), "pretrain")
GOLDENS = {
    "v5litepod-16": ["tpu", "up", "--name", "base", "--zone", "us-west4-a"],
    "v5litepod-256-2": ["tpu", "up", "--name", "base", "--accelerator", "v5litepod-256", "--slices", "2", "--spot"],
    "v5p-512": ["tpu", "up", "--name", "base", "--accelerator", "v5p-512", "--no-plan", "--no-follow"],
    "slurm-4x8": ["slurm", "--name", "base", "--nodes", "4", "--gpus", "8", "--partition", "gpu"],
    "jobset-4x4-2": ["jobset", "--name", "base", "--image", "gcr.io/p/train:1", "--slices", "2", "--spot"],
    "skypilot-2": ["skypilot", "--name", "base", "--nodes", "2", "--spot"],
    "skypilot-v5litepod-16": ["skypilot", "--name", "base", "--accelerators", "tpu-v5litepod-16"],
}


def checked(script: str) -> None:
    """By shellcheck, of the extra dev; but for SC2016, $ in single quotes: the far shell's, or a file's name."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, "shellcheck is missing: install the extra dev"
    command = [found, "--shell=bash", "--exclude=SC2016", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", GOLDENS)
def test_the_whole_text(name):
    text = made(*GOLDENS[name], *RUN)
    assert text == (HERE / "goldens" / f"{name}.txt").read_text("utf-8")
    if name.startswith(("v5", "slurm")):
        checked(text)
        for command in re.findall(r"'--command=([^']*)'", text):
            checked(command)
        if name.startswith("v5"):
            checked(text.partition("'END_OF_SCRIPT'\n")[2].partition("\nEND_OF_SCRIPT")[0])
    if name.startswith("skypilot"):
        task = yaml.safe_load(text)
        checked(task["setup"])
        checked(task["run"])


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            "stop",
            "ssh base --worker=all --node=all --batch-size=all --command=sudo systemctl disable --now training-base",
        ),
        ("delete", "delete base --zone=z --force --quiet"),
        ("logs", "ssh base --command=sudo journalctl --quiet --no-hostname --follow"),
    ],
)
def test_what_needs_no_training(action, expected):
    done = launch("tpu", action, "--name", "base", *["--zone", "z"] * (action == "delete"), "--dry-run")
    checked(done.stdout)
    assert " ".join(done.stdout.replace("\\\n", "").replace("'", "").split()).startswith(
        f"gcloud compute tpus queued-resources {expected}"
    )


def test_a_jobset_is_one_by_its_schema_and_passes_the_words_on():
    words = ["--", "scripts.pretrain", "--data", *AWKWARD, "--folder", "gs://b/r"]
    found = yaml.safe_load(made(*GOLDENS["jobset-4x4-2"], *words))
    schema = json.loads((HERE / "jobset_schema.json").read_text("utf-8"))
    assert faults(found, schema) == []
    (container,) = pod(found)["containers"]
    # As Kubernetes expands a command: $(NAME) of the environment, $$ to $.
    expanded = [re.sub(r"\$\$|\$\((\w+)\)", lambda m: "" if m[1] else "$", word) for word in container["command"]]
    assert expanded == ["pegasus-zh", *looped("pegasus-zh", "--distributed")]
    pod(found)["hostnetwork"] = "yes"
    del container["name"]
    assert len(faults(found, schema)) == 2


def pod(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def faults(value: object, schema: dict, at: str = "") -> list[str]:
    """What Kubernetes would refuse, of the schemas that it allows; fields that it does not know, too."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) else [f"{at}: no number"]
    if not isinstance(value, kinds[schema["type"]]) or value not in schema.get("enum", [value]):
        return [f"{at}: {value!r} is no {schema['type']}"]
    if isinstance(value, list):
        return [fault for i, x in enumerate(value) for fault in faults(x, schema["items"], f"{at}[{i}]")]
    if not isinstance(value, dict) or set(schema) <= {"type"}:
        return []
    found = [f"{at}.{name}: missing" for name in schema.get("required", []) if name not in value]
    for name, x in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        found += [f"{at}.{name}: unknown"] if known is None else faults(x, known, f"{at}.{name}")
    return found


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tpu", "up", "--name", "Base_1", *RUN], "--name is 'Base_1': it must begin with a letter, have lower-case"),
        (["tpu", "up", "--name", "b" * 41, *RUN], "--name is 'bbbb"),
        (
            ["tpu", "up", "--name", "b", "--accelerator", "v5e-16", *RUN],
            "accelerator 'v5e-16' is not known: give one of",
        ),
        (["tpu", "up", "--name", "b", "--slices", "0", *RUN], "--slices is 0: it must be 1 or more"),
        (["tpu", "up", "--name", "b"], "no training: give it after --"),
        (["slurm", "--name", "b"], "no training: give it after --"),
        (
            ["slurm", "--name", "b", "--", "scripts.embed"],
            "'scripts.embed' is no training: give one of scripts.pretrain,",
        ),
        (["slurm", "--name", "b", "--", "--alert", "https://h/S"], "'--alert https://…' is no training: give one of"),
        (["tpu", "up", "--name", "b", *BASE], "--folder is not given: 4 hosts need one that all see"),
        (["tpu", "up", "--name", "b", *BASE, "--folder=runs/b"], "--folder runs/b is on each host's own disk: 4 hosts"),
        (
            ["slurm", "--name", "b", "--nodes", "2", *BASE, "--folder", "/tmp/b"],
            "--folder /tmp/b is on each host's own",
        ),
        (
            ["jobset", "--name", "b", "--image", "i", *BASE, "--folder", "runs/b"],
            "--folder runs/b is on each host's own",
        ),
        (["skypilot", "--name", "b", "--nodes", "2", *BASE], "--folder is not given: 2 hosts"),
        (["slurm", "--name", "b", "--folder", "gs://b/r", *RUN], "--folder is given before -- and after it"),
        (["slurm", "--name", "b", "--time", "1 day", *RUN], "--time is '1 day': Slurm has no such value"),
        (["slurm", "--name", "b", *BASE, "a\nb"], "a line break in the arguments of the training"),
        (
            ["jobset", "--name", "b", "--image", "i", "--accelerator", "v5p-8", "--slices", "2", *RUN],
            "--slices is 2: GKE joins none of one host, such as v5p-8",
        ),
    ],
)
def test_what_cannot_be_is_one_line(arguments, line):
    done = launch(*arguments)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {line}")


BREAKS = "\n\r\t\v\f\x00\x1b\x1c\x7f\x85\u2028\u2029\udcff\ufffe"


@pytest.mark.parametrize("character", BREAKS, ids=ascii)
def test_nothing_that_may_end_a_line_comes_into_what_is_made(character):
    odd, job = f"a{character}b: c", Job(name="b")
    for make, said in [
        (lambda: Work(("pretrain",), ("--data", odd), "pretrain"), "a line break in the arguments of the training"),
        (lambda: Job(name="b", folder=odd), "folder has a line break"),
        (lambda: Job(name="b", data=("x", odd)), "data has a line break"),
        (lambda: Job(name=f"b{character}"), "name has a line break"),
        (lambda: JobSetConfig(job=job, image=odd), "image has a line break"),
        (lambda: JobSetConfig(job=job, image="i", cluster=odd), "cluster has a line break"),
        (lambda: TpuConfig(action="up", job=job, zone=odd), "zone has a line break"),
        (lambda: TpuConfig(action="up", job=job, wheel=f"{odd}/a.whl"), "wheel has a line break"),
        (lambda: SkyPilotConfig(job=job, infra=odd), "infra has a line break"),
        (lambda: SlurmConfig(job=job, environment=odd), "environment has a line break"),
    ]:
        with pytest.raises(ValueError, match=f"^{said}"):
            make()


@pytest.mark.parametrize(
    "wheel", ['dist/a"; touch pwned; ".whl', "dist/$(touch pwned).whl", "`x`.whl", "a b.whl", "轮.whl", "dist/", "x"]
)
def test_a_wheels_name_says_nothing_to_a_shell(wheel):
    job = Job(name="b")
    for make in (lambda: TpuConfig(action="up", job=job, wheel=wheel), lambda: SkyPilotConfig(job=job, wheel=wheel)):
        with pytest.raises(ValueError, match="^wheel is .*: give a file whose name ends in .whl"):
            make()
    assert "'it is/a-1.0+cu12.whl'" in tpu.script(TpuConfig(action="up", job=job, wheel="it is/a-1.0+cu12.whl"), ONE)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("s3://b/r", "folder is s3://b/r: a path on a disk or gs://BUCKET/NAME"),
        ("https://h/r", "folder is https://h/r: a path on a disk or gs://BUCKET/NAME"),
        ("", "folder is '': give a path"),
        ("gs://", "folder is gs://: name the bucket"),
        ("gs://b/r*", r"folder is gs://b/r\*: give a name without"),
    ],
)
def test_a_folder_that_the_training_would_refuse_is_refused_here(folder, said):
    for hosts in (1, 4):
        for shared in (True, False):
            with pytest.raises(ValueError, match=f"^{said}"):
                check_folder(Work(("pretrain",), ("--folder", folder), "pretrain"), hosts, shared=shared)


def test_one_host_may_have_a_folder_of_its_own_and_no_others_to_join():
    one = made("tpu", "up", "--name", "b", "--accelerator", "v6e-8", *BASE, "--folder", "runs/b")
    assert "--folder runs/b" in one and "--distributed" not in one


def test_the_jobs_flags_are_the_trainings():
    given = made("slurm", "--name", "b", "--data", "x y", "z", "--folder", "/s/b", "--", "scripts.pretrain")
    assert given == made("slurm", "--name", "b", "--", "scripts.pretrain", "--data", "x y", "z", "--folder", "/s/b")


def test_slices_are_what_their_names_count():
    for name in SLICES:
        found = slice_named(name)
        assert int(name.partition("-")[2]) == found.chips * found.kind.cores
    found = [slice_named(name) for name in ("v5litepod-8", "v5litepod-16", "v4-8", "v5p-512", "v6e-256")]
    assert [(x.topology, x.hosts) for x in found] == [
        ("v5e:2x4", 1), ("v5e:4x4", 4), ("v4:2x2x1", 1), ("v5p:4x8x8", 64), ("v6e:16x16", 64),
    ]  # fmt: skip


def test_what_docs_say_to_type_is_understood():
    page = (ROOT / "docs" / "pods.md").read_text("utf-8").replace("\\\n", "")
    lines = re.findall(r"^(?:python -m scripts\.|\.venv/bin/pegasus-zh )launch (.*)$", page, re.M)
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.partition(" > ")[0], comments=True)
        assert made(*words, *["--"] * ("--" not in words))


def test_every_training_that_can_be_planned_can_be_launched():
    assert set(TRAININGS) == set(plan.COMMANDS)
    assert all((ROOT / "scripts" / f"{words[0]}.py").exists() for words in TRAININGS.values())


def test_the_wheel_is_that_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"scp dist/pegasus_zh-{version}-py3-none-any.whl" in made("tpu", "up", "--name", "b", *RUN)


if __name__ == "__main__":
    for name, arguments in GOLDENS.items():
        (HERE / "goldens" / f"{name}.txt").write_text(made(*arguments, *RUN), "utf-8")
