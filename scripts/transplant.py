"""Begin T5-PEGASUS from mT5: python -m scripts.transplant --model MT5 --folder FOLDER --tokenizer vocab.txt"""

from training.command import run

from . import prog


def main() -> None:
    from pegasus_zh.t5.transplant import TransplantConfig, transplant
    from training.flags import parse_flags

    transplant(parse_flags(TransplantConfig, prog=prog("transplant")))


if __name__ == "__main__":
    run(main)
