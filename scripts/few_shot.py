"""Compare pretraining objectives by few-shot fine-tuning: python -m scripts.few_shot --help"""

from pathlib import Path

from training.command import run


def main() -> None:
    import jax
    import tyro

    from pegasus_zh.few_shot import FewShotConfig, few_shot

    config = tyro.cli(FewShotConfig, prog="python -m scripts.few_shot")
    # Dozens of runs compile the same few programs.
    jax.config.update("jax_compilation_cache_dir", str((Path(config.folder) / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    few_shot(config)


if __name__ == "__main__":
    run(main)
