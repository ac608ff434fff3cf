"""How well do critics approximate the Wasserstein distance, and what does it buy? python -m scripts.wgan NAME --help"""

import sys

from training.command import run

from . import prog


def main() -> object:
    from gan.experiments.all import EXPERIMENTS
    from training.flags import parse_preset

    name, *arguments = sys.argv[1:] or [""]
    if name not in EXPERIMENTS:
        lines = "\n".join(f"  {name:18} {one.question}" for name, one in EXPERIMENTS.items())
        print(f"usage: {prog('wgan')} NAME [--preset smoke|cpu|full] [flags]\n\n{lines}\n\nNAME --help: its flags")
        sys.exit(
            0 if name in ("--help", "-h") else f"\nerror: {f'no experiment {name!r}' if name else 'no NAME given'}"
        )
    one = EXPERIMENTS[name]
    config = parse_preset(
        one.config,
        one.presets,
        lambda preset: one.config(preset=preset, folder=f"runs/wgan/{name}-{preset}", **one.presets[preset]),
        "smoke",
        args=arguments,
        prog=f"{prog('wgan')} {name}",
        description=f"{one.question.capitalize()}\n\n{one.config.__doc__}",
    )
    return one.run(config)


if __name__ == "__main__":
    run(main)
