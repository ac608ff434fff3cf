"""Raw documents -> a prepared set of packed rows: python -m scripts.prepare --help"""

from training.command import run

from . import prog


def main() -> None:
    import sys
    from collections.abc import Callable
    from pathlib import Path

    import tyro

    from pegasus_zh.rows.makers import ExamplesConfig
    from pegasus_zh.rows.prepare import PrepareConfig, prepare, prepare_set
    from pegasus_zh.text.tokenizer_files import load_tokenizer
    from training.flags import parse_flags

    args = sys.argv[1:]
    mark = args.index("--") if "--" in args else len(args)

    def command(examples: ExamplesConfig, documents: PrepareConfig, tokenizer: Path, folder: Path) -> Callable:
        """Prepares --data into --folder, or goes on where an earlier run was stopped;
        scripts.pretrain --prepared trains on it. Behind -- come flags of Apache Beam, which then does the work on
        other machines: … -- --runner DataflowRunner (docs/data.md).

        tokenizer: a folder that holds vocab.txt or spiece.model, or such a file. folder: where the set goes.
        """
        if mark == len(args):
            return lambda: prepare(examples, documents, load_tokenizer(tokenizer), folder)
        from pegasus_zh.rows.beam import Beam

        return lambda: prepare_set(examples, documents, load_tokenizer(tokenizer), folder, Beam(args[mark + 1 :]))

    parse_flags(command, args=args[:mark], prog=prog("prepare"), config=(tyro.conf.OmitArgPrefixes,))()


if __name__ == "__main__":
    run(main)
