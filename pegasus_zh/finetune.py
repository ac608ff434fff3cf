"""Fine-tuning from the pairs of files (scripts.finetune): which are trained on, and which choose the epoch."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np

from pegasus_zh.t5.load import Semantics, load
from pegasus_zh.text.lines import ends_in
from pegasus_zh.text.pairs import PAIR_FILES, located_pairs, whole
from pegasus_zh.tuning import FinetuneRecipe, Tuned, tune
from training.files.buckets import path_of
from training.files.errors import DataError
from training.flags import FLAT, parse_flags
from training.launch import LaunchConfig, hold, joined
from training.loop import LoopConfig
from training.mesh import make_mesh
from training.partition import parts_of
from training.program import Program
from training.ranges import check_ranges
from training.telling import tell


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tune a model on pairs of texts. The defaults are T5-PEGASUS's; the same command resumes a run."""

    model: str
    """A work folder of scripts.pretrain or scripts.finetune, a folder of transformers, or a bert4keras checkpoint."""
    data: str
    """.tsv (reference TAB source), or .csv, .jsonl or .json (see --field); also .gz, .zst."""
    folder: str
    """Where everything of the run goes; the best model into best/ in it."""
    valid: str = ""
    """Pairs to choose the best epoch by; by default --valid-examples of --data, which are then not trained on."""
    valid_examples: int = 500
    """Pairs to choose the best epoch by, at most."""
    examples: int = 0
    """Train on so many pairs, drawn by --seed; 0: all."""
    field: str = "source"
    """The field or column with what the model reads."""
    reference_field: str = "reference"
    """The field or column with what it is to write."""
    semantics: Semantics = "auto"
    """What the weights were trained by, where the source does not tell."""
    recipe: Annotated[FinetuneRecipe, FLAT] = dataclasses.field(default_factory=FinetuneRecipe)
    """What trains."""
    launch: Annotated[LaunchConfig, FLAT] = dataclasses.field(default_factory=LaunchConfig)
    """On what it runs."""

    def __post_init__(self):
        check_ranges(self, valid_examples=1, examples=0)


def finetune(config: FinetuneConfig) -> Tuned:
    """Runs, or resumes, the whole of it. Raises DataError and ValueError."""
    joined(config.launch)
    loaded = load(config.model, semantics=config.semantics)
    tell(loaded.source)
    training, valid = read_data(config)
    with hold(config.folder, config.launch):
        return tune(
            config.recipe, loaded, training, valid, make_mesh(config.launch.mesh), path_of(config.folder, "--folder")
        )


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.finetune") -> FinetuneConfig:
    """The command line's config."""
    return parse_flags(FinetuneConfig, prog=prog, args=args)


def plan_of(config: FinetuneConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan: rows as long as may be."""
    recipe, loaded = config.recipe, load(config.model, semantics=config.semantics)
    training, valid = read_data(config)
    loop, shape = (
        recipe.loop(len(training), len(valid), parts_of("batch", mesh)),
        (recipe.max_source, recipe.max_target),
    )
    return recipe.program(recipe.model(loaded.config), shape, loop.steps), loop


def read_data(config: FinetuneConfig) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The (source, reference) pairs that are trained on, and those that choose the epoch. Raises DataError for files
    that cannot be read, and for too few pairs."""

    training = read_whole_pairs(config.data, config.field, config.reference_field)
    order = np.random.default_rng(config.recipe.seed).permutation(len(training)).tolist()
    if config.valid:
        valid = read_whole_pairs(config.valid, config.field, config.reference_field)[: config.valid_examples]
    else:
        # By the source, not the seed: a run is not trained on what it, or one of another seed, is chosen by.
        ranked = sorted(range(len(training)), key=lambda i: hashlib.sha256(training[i][0].encode()).digest())
        held = set(ranked[: min(config.valid_examples, len(training) // 2)])
        valid, sources = [training[i] for i in sorted(held)], {training[i][0] for i in held}
        order = [i for i in order if training[i][0] not in sources]
        if left := len(training) - len(order) - len(held):
            tell(f"{config.data}: {left:,} pairs are left out, whose sources are among those to choose by")
    if config.examples > len(order):
        raise DataError(f"{config.data}: {len(order)} pairs to train on, not the {config.examples} of --examples")
    chosen = [training[i] for i in order[: config.examples or None]]
    if not chosen or not valid:
        count = len({source for source, _ in training})
        raise DataError(
            f"{config.data}: {len(training)} pair(s) of {count} source(s) are too few to train on some sources and "
            "choose by others: add pairs of other sources, or give --valid"
        )
    source, reference = (sum(len(pair[side]) for pair in chosen) / len(chosen) for side in (0, 1))
    if reference > source:
        tell(
            f"warning: {config.data}: its references are longer than its sources, {reference:,.0f} characters and "
            f"{source:,.0f} on average; if they have changed places, a .tsv is reference TAB source, and names are "
            "given by --field and --reference-field"
        )
    return chosen, valid


def read_whole_pairs(path: str, field: str = "source", reference_field: str = "reference") -> list[tuple[str, str]]:
    """The (source, reference) pairs of a file. Raises DataError for a file of another kind, such as .txt, and where one
    of the two is missing."""
    if not ends_in(path, PAIR_FILES.suffixes):
        raise DataError(f"{path}: unknown kind of file; {PAIR_FILES.told}")
    pairs = [whole(pair, place) for place, pair in located_pairs(path, field, reference_field, both=True)]
    if not pairs:
        raise DataError(f"{path}: no pair in it")
    return pairs
