"""Does a training fit a TPU slice that is not here? python -m scripts.plan COMMAND [--topology v5e:4x4] [its flags]"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from training.command import run

from . import prog

USAGE = """usage: {} COMMAND [--topology v5e:4x4] [the flags of COMMAND]

Compiles the training step of a command for a TPU slice that is not here (v5e:4x4, v5p:2x2x2, v6e:8x8, …), arranged by \
--mesh.data,
--mesh.fsdp and --mesh.tensor, and says what memory each chip needs. COMMAND --help shows its flags.

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
    config, launch, plan_of = COMMANDS[command](arguments, f"{prog('plan')} {command}")
    program, loop = plan_of(config)
    mesh = tpu_mesh(topology, launch.mesh)
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


Planned = tuple[Any, Any, Callable]  # a command's config, on what it would run, and what makes its program


def _pretrain(args: list[str], prog: str) -> Planned:
    from pegasus_zh import pretrain

    config = pretrain.parse(args, prog)
    return config, config.launch, pretrain.plan_of


def _finetune(args: list[str], prog: str) -> Planned:
    import tyro

    from pegasus_zh import finetune

    config = tyro.cli(finetune.FinetuneConfig, args=args, prog=prog)
    return config, config.launch, finetune.plan_of


def _pretrain_encoder(args: list[str], prog: str) -> Planned:
    from pegasus_zh import text_encoder

    config = text_encoder.parse(args, prog)
    return config, config.encoder.launch, text_encoder.plan_of


def _simcse(args: list[str], prog: str) -> Planned:
    import tyro

    from retrieval.tuning import simcse

    config = tyro.cli(simcse.SimCSEConfig, args=args, prog=prog)
    return config, config.launch, simcse.plan_of


def _wgan_images(args: list[str], prog: str) -> Planned:
    from gan.experiments import images
    from training.flags import parse_preset

    default = lambda preset: images.ImagesConfig(preset=preset, **images.PRESETS[preset])  # noqa: E731
    config = parse_preset(images.ImagesConfig, images.PRESETS, default, "smoke", args=args, prog=prog)
    return config, config.launch, images.plan_of


COMMANDS: dict[str, Callable[[list[str], str], Planned]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "pretrain_encoder": _pretrain_encoder,
    "simcse": _simcse,
    "wgan_images": _wgan_images,
}


if __name__ == "__main__":
    run(main)
