"""Raw documents -> a prepared set of packed rows: python -m scripts.prepare --help"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    from pathlib import Path

    import tyro

    from pegasus_zh.rows.prepare import PrepareConfig, prepare
    from pegasus_zh.text.tokenizers import load_tokenizer
    from training.command import run

    from . import prog

    def main(config: PrepareConfig, tokenizer: Path, folder: Path) -> None:
        """Prepares --data into --folder, or goes on where an earlier run was stopped;
        scripts.pretrain --prepared trains on it.

        tokenizer: a folder that holds vocab.txt or spiece.model, or such a file. folder: where the set goes.
        """
        prepare(config, load_tokenizer(tokenizer), folder)

    run(lambda: tyro.cli(main, prog=prog("prepare"), config=(tyro.conf.OmitArgPrefixes,)))
