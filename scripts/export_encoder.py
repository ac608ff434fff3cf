"""Write an encoder for transformers: python -m scripts.export_encoder --model PATH --folder FOLDER"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.text_encoder import ExportEncoderConfig, export_encoder

    export_encoder(tyro.cli(ExportEncoderConfig, prog=prog("export_encoder")))


if __name__ == "__main__":
    run(main)
