"""Does a training fit a TPU slice that is not here, and how fast is it there? python -m scripts.plan COMMAND [flags]"""

import sys
from collections.abc import Sequence
from importlib import import_module

from training.command import run

from . import prog

# Each has parse(arguments, prog), plan_of(config, mesh), and configs that say on what they would run.
# The flags by which --search changes it: the batch, what is recomputed, the optimizer.
COMMANDS = {
    "pretrain": ("pegasus_zh.pretrain", ("--batch-size", "--remat", "--optimizer")),
    "finetune": ("pegasus_zh.finetune", ("--batch-size", "--remat", "--optimizer")),
    "pretrain_encoder": ("pegasus_zh.text_encoder", ("--batch-size", "--remat", "--optimizer")),
    "simcse": ("retrieval.tuning.simcse", ("--batch-size", "--remat", "--optimizer")),
    "roformer_sim": ("retrieval.tuning.roformer_sim", ("--batch-size", "--remat", "--optimizer")),
    "match_anonymised": ("retrieval.matching.commands.train", ("--batch-size", "--remat", "--optimizer")),
    "wgan_images": ("gan.experiments.images", ("--loop.batch-size", None, None)),
}
AUTO = {"remat": "dots on a TPU", "attention": "flash on a TPU, where it is legal"}
USAGE = """usage: {} COMMAND [flags of plan] [the flags of COMMAND]

Compiles the training step of a command for a TPU slice that is not here, arranged by --mesh.data, --mesh.fsdp and
--mesh.tensor, and says what memory each chip needs, how long a step takes, and where: reckoned from the schedules that
the compiler makes of its operations; beside it stands the compiler's own estimate, which is longer. It needs libtpu,
which `make plan ARGS=…` sees to. COMMAND --help shows its flags.

  pretrain          T5-PEGASUS, such as --preset t5-pegasus-base --dtype bfloat16 --batch-size 128 --mesh.fsdp 4
  finetune          on pairs, such as --model runs/tiny --data pairs.tsv --folder runs/pairs
  pretrain_encoder  RoFormer or BERT, such as --preset roformer-base --dtype bfloat16
  simcse            sentence vectors, such as --model runs/encoder --data texts.txt
  roformer_sim      similar questions, such as --model runs/encoder --data groups.jsonl
  match_anonymised  pairs, as scripts.match_anonymised train, such as --model runs/aligned --data labelled.tsv
  wgan_images       a GAN, as scripts.wgan images, such as --critic gp

flags of plan:
  --topology v5e:4x4   the slice: v4:2x2x1, v5e:4x4, v5p:2x2x2, v6e:8x8, …
  --slices 1           so many of it, each a replica: --mesh.data, --mesh.fsdp and --mesh.tensor are of one
  --kept runs/plans    a folder for what was compiled: the same program is compiled once
  --json FILE          writes the plan
  --against FILE       shows a plan that --json wrote beside this one
  --search             tries meshes x rows a chip x remat x optimizer, and shows those that nothing beats
  --minutes 30         of the search
  --rows 8,16,32,64    a chip, of the search; batches are of as many as the mesh cuts"""


def main() -> None:
    command, *arguments = sys.argv[1:] or [""]
    if command not in COMMANDS:
        print(USAGE.format(prog("plan")))
        named = f"no training {command!r}" if command else "no COMMAND given"
        sys.exit(0 if command in ("-h", "--help") else f"\nerror: {named}")
    from training.mesh import AXES
    from training.pods.compilation import tpu_mesh
    from training.pods.planning import flags, show_plan, show_rows, show_search, show_settings
    from training.pods.search import Candidate

    options, arguments = flags(arguments)
    name, changes = COMMANDS[command]
    module = import_module(name)
    config = module.parse(arguments, f"{prog('plan')} {command}")
    mesh = tpu_mesh(options.topology, config.launch.mesh, options.slices)
    program, loop = module.plan_of(config, mesh)
    show_settings(config, AUTO, command, options)
    if options.search:
        rows, remat, optimizer = changes

        def process(one: Candidate) -> list[str]:
            batch = one.batch * loop.accumulate
            here = ["--topology", options.topology, "--slices", options.slices, "--kept", options.kept]
            axes = [f"--mesh.{name}" for name in AXES[-len(one.mesh) :]]
            sizes = zip((*axes, rows), (*one.mesh, batch), strict=True)
            given = [pair for pair in ((remat, one.remat), (optimizer, one.optimizer)) if None not in pair]
            changed = [part for pair in (*sizes, *given) for part in pair]
            return [sys.executable, "-m", __spec__.name, command, *map(str, (*here, *arguments, *changed))]

        tried = ("full", "dots", "none") if remat else (None,)
        show_search(program, mesh, options, process, tried, ("adamw", "adafactor") if optimizer else (None,))
        return
    program.check(mesh, loop.microbatch)
    show_rows(program, mesh, loop)
    print(f"compiling {command} for {options.topology}: a minute or more", flush=True)
    show_plan(program, mesh, loop, options, _name(command, arguments))


def _name(command: str, arguments: Sequence[str]) -> str:
    """The preset, where one is given."""
    return dict(zip(arguments, arguments[1:], strict=False)).get("--preset", command)


if __name__ == "__main__":
    run(main)
