"""Write a model for transformers: python -m scripts.export --model PATH --folder FOLDER"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.t5.export import ExportConfig, export

    export(tyro.cli(ExportConfig, prog=prog("export")))


if __name__ == "__main__":
    run(main)
