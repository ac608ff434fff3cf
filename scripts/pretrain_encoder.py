"""Pretrain RoFormer or BERT by masked language model: python -m scripts.pretrain_encoder --help"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    import sys
    from dataclasses import replace
    from pathlib import Path
    from typing import Annotated

    import tyro

    from pegasus_zh.text_encoder import tokenizer_folder
    from pegasus_zh.text_rows import TextConfig, text_rows
    from rope.pretrain import EncoderConfig, pretrain_encoder, recipe
    from rope.roformer import PRESETS
    from training.command import preset_of, run
    from training.mesh import join_processes

    DEFAULT = recipe(preset_of(sys.argv, PRESETS, "tiny"))
    Plain = tyro.conf.arg(name="")

    def main(
        text: Annotated[TextConfig, Plain] = TextConfig(),  # noqa: B008
        encoder: Annotated[EncoderConfig, Plain] = DEFAULT,
        distributed: bool = False,
    ) -> None:
        """Pretrains RoFormer (or BERT: --positions learned) on Chinese text by masked language model.

        Without --data it trains on the corpus that comes with the project. The same command resumes a run.

        distributed: one process of several: joins them through jax.distributed (a TPU pod finds the others by itself).
        """
        if distributed:
            join_processes()
        if encoder.start and not text.tokenizer:
            text = replace(text, tokenizer=str(tokenizer_folder(encoder.start)))
        pretrain_encoder(encoder, text_rows(text, encoder.length, Path(encoder.folder)))

    run(lambda: tyro.cli(main, prog="python -m scripts.pretrain_encoder"))
