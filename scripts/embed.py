"""Make a vector of each text: python -m scripts.embed --help"""

from training.command import run


def main() -> None:
    import tyro

    from retrieval.embed import EmbedConfig, embed_file

    embed_file(tyro.cli(EmbedConfig, prog="python -m scripts.embed"))


if __name__ == "__main__":
    run(main)
