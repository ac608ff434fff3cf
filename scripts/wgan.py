"""How well do critics approximate the Wasserstein distance, and what does it buy? python -m scripts.wgan NAME --help"""

import sys

from training.command import preset_of, run


def main() -> None:
    import jax
    import tyro

    from gan.experiments.all import EXPERIMENTS

    name, *arguments = sys.argv[1:] or [""]
    if name not in EXPERIMENTS:
        lines = "\n".join(f"  {name:18} {one.question}" for name, one in EXPERIMENTS.items())
        print(
            f"usage: python -m scripts.wgan NAME [--preset smoke|cpu|full] [flags]\n\n{lines}\n\nNAME --help: its flags"
        )
        sys.exit(
            0 if name in ("--help", "-h") else f"\nerror: {f'no experiment {name!r}' if name else 'no NAME given'}"
        )
    one = EXPERIMENTS[name]
    preset = preset_of(arguments, one.presets, "smoke")
    default = one.config(preset=preset, folder=f"runs/wgan/{name}-{preset}", **one.presets[preset])
    about = f"{one.question.capitalize()}\n\n{one.config.__doc__}"
    config = tyro.cli(
        one.config, default=default, args=arguments, prog=f"python -m scripts.wgan {name}", description=about
    )
    # A certified critic's bound holds to 1e-6 a layer in float32, and to 0.5 % in what an accelerator takes for it by default.
    jax.config.update("jax_default_matmul_precision", "highest")
    one.run(config)


if __name__ == "__main__":
    run(main)
