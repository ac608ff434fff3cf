"""The experiments by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gan.experiments import gans, images, minima, static, surfaces


class Experiment(NamedTuple):
    question: str
    config: type
    presets: Mapping[str, dict[str, Any]]  # what differs from the config's defaults
    run: Callable[[Any], None]


EXPERIMENTS = {
    "static": Experiment(
        "what do critics say of two fixed laws, and what is true?", static.StaticConfig, static.PRESETS, static.static
    ),
    "surfaces": Experiment(
        "what do critics look like in two dimensions?", surfaces.SurfacesConfig, surfaces.PRESETS, surfaces.surfaces
    ),
    "false-minima": Experiment(
        "are averages nearer to a batch than real images are?", minima.MinimaConfig, minima.MINIMA, minima.false_minima
    ),
    "sample-complexity": Experiment(
        "how many points does the distance need?", minima.SamplesConfig, minima.SAMPLES, minima.sample_complexity
    ),
    "tradeoff": Experiment("do better distances make better images?", gans.GansConfig, gans.TRADEOFF, gans.gans),
    "dynamic": Experiment(
        "what do critics say while a generator is trained?", gans.GansConfig, gans.DYNAMIC, gans.gans
    ),
    "n-critic": Experiment("what do more updates of the critic buy?", gans.GansConfig, gans.N_CRITIC, gans.gans),
    "discrete": Experiment(
        "what do convolutional critics measure, where a generator makes few images?",
        gans.GansConfig,
        gans.DISCRETE,
        gans.gans,
    ),
    "images": Experiment(
        "one GAN on images, over a mesh, with samples as it goes", images.ImagesConfig, images.PRESETS, images.images
    ),
    "batch-size": Experiment("what do larger batches buy?", gans.GansConfig, gans.BATCH_SIZE, gans.gans),
}
