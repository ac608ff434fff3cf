"""Pretrain RoFormer or BERT by masked language model: python -m scripts.pretrain_encoder --help"""

if __name__ == "__main__":  # the imports too: worker processes import this file again
    import sys
    from typing import Annotated

    import tyro

    from pegasus_zh.text_encoder import pretrain
    from pegasus_zh.text_rows import TextConfig
    from rope.pretrain import EncoderConfig, recipe
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
        pretrain(text, encoder)

    run(lambda: tyro.cli(main, prog="python -m scripts.pretrain_encoder"))
