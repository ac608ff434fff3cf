"""Make a vector of each text: python -m scripts.embed --help"""

from training.command import run

from . import prog


def main() -> None:
    from retrieval.embed import EmbedConfig, embed_file
    from training.flags import parse_flags

    config = parse_flags(EmbedConfig, prog=prog("embed"))
    print("{}: {:,} vectors of {} dimensions".format(config.out, *embed_file(config)))


if __name__ == "__main__":
    run(main)
