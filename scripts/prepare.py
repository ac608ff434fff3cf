"""Raw documents -> a prepared set of packed rows: python -m scripts.prepare --help"""

from training.command import run

from . import prog


def main() -> None:
    from collections.abc import Callable
    from pathlib import Path

    import tyro

    from pegasus_zh.rows.makers import ExamplesConfig
    from pegasus_zh.rows.prepare import PrepareConfig, prepare
    from pegasus_zh.text.tokenizer_files import load_tokenizer
    from training.flags import parse_flags

    def command(examples: ExamplesConfig, documents: PrepareConfig, tokenizer: Path, folder: Path) -> Callable:
        """Prepares --data into --folder, or goes on where an earlier run was stopped;
        scripts.pretrain --prepared trains on it.

        tokenizer: a folder that holds vocab.txt or spiece.model, or such a file. folder: where the set goes.
        """
        return lambda: prepare(examples, documents, load_tokenizer(tokenizer), folder)

    parse_flags(command, prog=prog("prepare"), config=(tyro.conf.OmitArgPrefixes,))()


if __name__ == "__main__":
    run(main)
