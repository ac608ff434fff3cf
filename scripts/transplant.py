"""Begin T5-PEGASUS from mT5: python -m scripts.transplant --model MT5 --folder FOLDER --tokenizer vocab.txt"""

from training.command import run

from . import prog


def main() -> None:
    import tyro

    from pegasus_zh.t5.transplant import TransplantConfig, transplant

    transplant(tyro.cli(TransplantConfig, prog=prog("transplant")))


if __name__ == "__main__":
    run(main)
