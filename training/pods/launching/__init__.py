"""From a laptop to a training on many hosts, as text: what scripts.launch prints or runs.

accelerators     names of TPU slices: their chips, shapes, hosts, and what gcloud and GKE call them
job              one training to be launched: its command, and what cannot be
tpu              gcloud's queued resources and what is said to their hosts; slurm: a batch file
jobset           a Kubernetes manifest, and xpk's command line; skypilot: a task
restarts         the loop in which the training runs there, and starts again
"""
