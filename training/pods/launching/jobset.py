"""A JobSet for TPUs on Google Kubernetes Engine, and the same as a command line of xpk.

https://jobset.sigs.k8s.io/docs/tasks/tpu_multislice/, https://docs.cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice
and, for spot-vms, .../docs/concepts/spot-vms; https://github.com/AI-Hypercomputer/xpk/blob/main/docs/usage/workloads.md.
"""

import json
import shlex
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from training.flags import FLAT
from training.pods.launching.accelerators import Slice, slice_named
from training.pods.launching.job import Job, Work, check_folder, check_words, shell, words_of


@dataclass(frozen=True, kw_only=True)
class JobSetConfig:
    job: Annotated[Job, FLAT]
    image: str
    """A container image in which this project is installed, with its extras tpu and gcs."""
    accelerator: str = "v5litepod-16"
    """Of each slice, as gcloud and xpk call it."""
    slices: int = 1
    """So many of it, each of a node pool of its own."""
    spot: bool = False
    """On spot machines."""
    restarts: int = 10
    """Times that everything begins anew after a host is lost."""
    cluster: str = "CLUSTER"
    """The cluster's name, for the command line of xpk."""
    slice: tyro.conf.Suppress[Slice] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "slice", slice_named(self.accelerator))
        check_words(self)
        if self.slices < 1 or self.restarts < 0:
            raise ValueError(f"slices is {self.slices}, restarts {self.restarts}: 1 and 0 are the least")
        if self.slices > 1 and self.hosts == 1:
            raise ValueError(f"slices is {self.slices}: GKE joins none of one host, such as {self.accelerator}")

    @property
    def hosts(self) -> int:
        """Of a slice; GKE's machines have four chips, or all of a smaller slice."""
        return max(1, self.slice.chips // 4)


MANIFEST = """\
{xpk}
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: {restarts}
  replicatedJobs:
    - name: slice
      replicas: {slices}
      template:
        spec:
          parallelism: {hosts}
          completions: {hosts}
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300
              hostNetwork: true
              dnsPolicy: ClusterFirstWithHostNet
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: {gke}
                cloud.google.com/gke-tpu-topology: {shape}
{spot}              containers:
                - name: training
                  image: {image}
                  command:
{command}
                  resources:
                    limits:
                      google.com/tpu: {chips}
"""
SPOT = """\
                cloud.google.com/gke-spot: "true"
              tolerations:
                - key: cloud.google.com/gke-spot
                  operator: Equal
                  value: "true"
                  effect: NoSchedule
"""


def manifest(config: JobSetConfig, work: Work) -> str:
    """Raises ValueError for what cannot be."""
    hosts = config.hosts * config.slices
    check_folder(work, hosts, shared=False, kept=False)
    words = ["pegasus-zh", "keep_running", "--", "pegasus-zh", *words_of(work, hosts)]
    return MANIFEST.format(
        xpk=_xpk(config, words),
        name=config.job.name,
        restarts=config.restarts,
        slices=config.slices,
        hosts=config.hosts,
        gke=config.slice.kind.gke,
        shape=config.slice.shape,
        spot=SPOT if config.spot else "",
        image=quoted(config.image),
        # Of a container's command $(NAME) is the environment's, and $$ is $:
        # https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
        command="\n".join(f"                    - {quoted(word.replace('$', '$$'))}" for word in words),
        chips=min(4, config.slice.chips),
    )


def quoted(text: str) -> str:
    """As YAML's double quotes have it, of which JSON's are some."""
    return json.dumps(text, ensure_ascii=False)


def _xpk(config: JobSetConfig, words: list[str]) -> str:
    """The same by xpk, as a comment."""
    line = shell([
        "xpk", "workload", "create", "--workload", config.job.name, "--cluster", config.cluster,
        "--tpu-type", config.accelerator, "--num-slices", str(config.slices), "--max-restarts", str(config.restarts),
        "--docker-image", config.image, "--command", shlex.join(words),
    ])  # fmt: skip
    return "\n".join(f"# {part}" for part in ("Beside kubectl apply -f, on a cluster of xpk's:", *line.split("\n")))
