"""Every config refuses the numbers that it cannot have."""

import math

import pytest

from pegasus_zh.experiments.few_shot import FewShotConfig
from pegasus_zh.finetune import FinetuneConfig
from pegasus_zh.pretrain import PretrainConfig, PretrainRecipe
from pegasus_zh.rows.makers import ExamplesConfig
from pegasus_zh.rows.prepare import PrepareConfig
from pegasus_zh.t5.mt5 import MT5Config
from pegasus_zh.text.vocabulary import TokenizerConfig
from pegasus_zh.tuning import FinetuneRecipe
from pegasus_zh.writing import Writing
from training.loop import LoopConfig
from training.optimizer import OptimizerConfig

REQUIRED = {
    FinetuneConfig: {"model": "", "data": "", "folder": ""},
    FewShotConfig: {"documents": ("some",), "tasks": ("some",)},
}
# For each config its fields with the least they may be, and the bound where there is one.
RANGES = {
    LoopConfig: dict.fromkeys(
        ("steps", "batch_size", "accumulate", "log_every", "eval_every", "save_every", "keep"), (1, None)
    )
    | {"seed": (0, 2**32), "eval_batches": (0, None)},
    OptimizerConfig: dict.fromkeys(("learning_rate", "weight_decay", "epsilon", "clip", "warmup"), (0, None))
    | {"beta1": (0, 1), "beta2": (0, 1)},
    MT5Config: {"dropout": (0, 1), "epsilon": (0, None)},
    ExamplesConfig: {
        "ratio": (0, None),
        "kept": (0, None),
        "characters": (0.1, None),
        "selector_seed": (0, 2**32),
        "max_source": (4, 2**15),
    },
    PrepareConfig: {"eval_fraction": (0, 1)},
    TokenizerConfig: {"vocabulary": (1, None)},
    PretrainConfig: {"samples": (0, None)},
    PretrainRecipe: {"dropout": (0, 1), "label_smoothing": (0, 1), "z_loss": (0, None)},
    FinetuneConfig: {"valid_examples": (1, None), "examples": (0, None)},
    FinetuneRecipe: dict.fromkeys(("epochs", "batch_size", "accumulate", "eval_epochs"), (1, None))
    | {"max_source": (3, None), "max_target": (3, None), "seed": (0, 2**32), "dropout": (0, 1)}
    | {"label_smoothing": (0, 1), "z_loss": (0, None)},
    Writing: {"max_source": (3, None), "max_target": (3, None), "batch_size": (1, None), "seed": (0, 2**32)},
    FewShotConfig: dict.fromkeys(
        ("seeds", "pretrain_steps", "batch_size", "updates", "test_examples", "valid_examples"), (1, None)
    )
    | {"learning_rate": (0, None), "characters": (0.1, None), "dropout": (0, 1)},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, fields in RANGES.items() for name in fields])
def test_every_config_says_what_it_takes(kind, name):
    least, bound = RANGES[kind][name]
    kind(**REQUIRED.get(kind, {}) | {name: least})
    for value in (least - 1, math.nan, math.inf, *([] if bound is None else [bound])):
        with pytest.raises(ValueError, match=f"^{name} is {value}: it must be "):
            kind(**REQUIRED.get(kind, {}) | {name: value})
