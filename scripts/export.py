"""Write a model for transformers: python -m scripts.export --model PATH --folder FOLDER"""

from training.command import run

from . import prog


def main() -> None:
    from pegasus_zh.t5.export import ExportConfig, export
    from training.flags import parse_flags

    export(parse_flags(ExportConfig, prog=prog("export")))


if __name__ == "__main__":
    run(main)
