"""Compare a ViT's position encodings on digits: python -m scripts.digits --help"""

from pathlib import Path

from training.command import run


def main() -> None:
    import jax
    import tyro

    from rope.digits import DigitsConfig, digits

    config = tyro.cli(DigitsConfig, prog="python -m scripts.digits")
    # A command that goes on compiles the same few programs.
    jax.config.update("jax_compilation_cache_dir", str((Path(config.folder) / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    digits(config)


if __name__ == "__main__":
    run(main)
