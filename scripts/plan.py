"""Does a training fit a TPU slice that is not here? python -m scripts.plan COMMAND [--topology v5e:4x4] [its flags]"""

import sys
from collections.abc import Sequence
from importlib import import_module

from training.command import run

from . import prog

# Each has parse(arguments, prog), plan_of(config, mesh), and configs that say on what they would run.
COMMANDS = {
    "pretrain": "pegasus_zh.pretrain",
    "finetune": "pegasus_zh.finetune",
    "pretrain_encoder": "pegasus_zh.text_encoder",
    "simcse": "retrieval.tuning.simcse",
    "wgan_images": "gan.experiments.images",
}
USAGE = """usage: {} COMMAND [--topology v5e:4x4] [the flags of COMMAND]

Compiles the training step of a command for a TPU slice that is not here (v5e:4x4, v5p:2x2x2, v6e:8x8, …), arranged
by --mesh.data, --mesh.fsdp and --mesh.tensor, and says what memory each chip needs. It needs libtpu, which
`make plan ARGS=…` sees to. COMMAND --help shows its flags.

  pretrain          T5-PEGASUS, such as --preset t5-pegasus-base --dtype bfloat16 --batch-size 128 --mesh.fsdp 4
  finetune          on pairs, such as --model runs/tiny --data pairs.tsv --folder runs/pairs
  pretrain_encoder  RoFormer or BERT, such as --preset roformer-base --dtype bfloat16
  simcse            sentence vectors, such as --model runs/encoder --data texts.txt
  wgan_images       a GAN, as scripts.wgan images, such as --critic gp"""


def main() -> None:
    command, *arguments = sys.argv[1:] or [""]
    if command not in COMMANDS:
        print(USAGE.format(prog("plan")))
        named = f"no training {command!r}" if command else "no COMMAND given"
        sys.exit(0 if command in ("-h", "--help") else f"\nerror: {named}")
    from training.plan import plan, tpu_mesh

    topology, arguments = _topology(arguments)
    module = import_module(COMMANDS[command])
    config = module.parse(arguments, f"{prog('plan')} {command}")
    mesh = tpu_mesh(topology, config.launch.mesh)
    program, loop = module.plan_of(config, mesh)
    program.check(mesh, loop.microbatch)
    print(f"compiling {command} for {topology}: a minute or more", flush=True)
    planned = plan(program, mesh, loop.microbatch, loop.accumulate)
    print(f"{command} on {topology}, data x fsdp x tensor = {tuple(mesh.shape.values())}: {planned}")


def _topology(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """(the slice, the other flags)."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--topology", default="v5e:4x4")
    known, rest = parser.parse_known_args(arguments)
    return known.topology, rest


if __name__ == "__main__":
    run(main)
