"""Raw documents -> a prepared set of packed rows, the input of pretraining.

python scripts/prepare.py --tokenizer FOLDER --out FOLDER --data 'corpus/*.jsonl.gz' tfds:wikipedia/20230601.zh:text
"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    import sys
    from pathlib import Path

    import tyro

    from pegasus_zh.errors import DataError
    from pegasus_zh.prepare import PrepareConfig, prepare
    from pegasus_zh.tokenizers import load_tokenizer

    def main(config: PrepareConfig, tokenizer: Path, out: Path) -> None:
        """Prepares --data into the folder --out, or goes on where an earlier run was stopped.

        tokenizer: the folder that holds vocab.txt or spiece.model.
        """
        prepare(config, load_tokenizer(tokenizer), out)

    try:
        tyro.cli(main, description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    except DataError as error:
        sys.exit(f"error: {error}")
