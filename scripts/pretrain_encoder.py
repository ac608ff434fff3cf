"""Pretrain RoFormer or BERT by masked language model: python -m scripts.pretrain_encoder --help"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    import sys
    from typing import Annotated

    import tyro

    from pegasus_zh.rows.plain_text import TextConfig, text_recipe
    from pegasus_zh.text_encoder import pretrain
    from rope.encoder.pretrain import EncoderConfig, recipe
    from rope.encoder.roformer import PRESETS
    from training.command import preset_of, run
    from training.mesh import join_processes

    from . import prog

    PRESET = preset_of(sys.argv, PRESETS, "tiny")
    DEFAULT, DEFAULT_TEXT = recipe(PRESET), text_recipe(PRESET)
    Plain = tyro.conf.arg(name="")

    def main(
        text: Annotated[TextConfig, Plain] = DEFAULT_TEXT,
        encoder: Annotated[EncoderConfig, Plain] = DEFAULT,
        distributed: bool = False,
    ) -> None:
        """Pretrains RoFormer (or BERT: --positions learned) on Chinese text by masked language model.

        Without --data it trains on the corpus that comes with the project. The same command resumes a run. The defaults
        are those of the preset: --preset NAME --help shows them.

        distributed: one process of several: joins them through jax.distributed (a TPU pod finds the others by itself).
        """
        if distributed:
            join_processes()
        pretrain(text, encoder)

    run(lambda: tyro.cli(main, prog=prog("pretrain_encoder")))
