"""Write an encoder for transformers and sentence-transformers: python -m scripts.export_encoder --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.export import ExportEncoderConfig, export_encoder
    from training.flags import parse_flags

    export_encoder(parse_flags(ExportEncoderConfig, prog=prog("export_encoder")))


if __name__ == "__main__":
    run(main)
