"""The experiments by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from gan.experiments import estimate, gans, images, minima, samples, static, surfaces


class Experiment(NamedTuple):
    question: str
    config: type
    presets: Mapping[str, dict[str, Any]]  # what differs from the config's defaults
    run: Callable[[Any], Any]


def _of_gans(question: str, presets: Mapping[str, dict[str, Any]]) -> Experiment:
    return Experiment(question, gans.GansConfig, presets, partial(gans.gans, question=question))


EXPERIMENTS = {
    "estimate": Experiment(
        "how far apart are the points or images of two files of yours?",
        estimate.EstimateConfig,
        estimate.PRESETS,
        estimate.estimate,
    ),
    "static": Experiment(
        "what do critics say of two fixed laws, and what is true?", static.StaticConfig, static.PRESETS, static.static
    ),
    "surfaces": Experiment(
        "what do critics look like in two dimensions?", surfaces.SurfacesConfig, surfaces.PRESETS, surfaces.surfaces
    ),
    "false-minima": Experiment(
        "are averages nearer to a batch than real images are?", minima.MinimaConfig, minima.PRESETS, minima.false_minima
    ),
    "sample-complexity": Experiment(
        "how many points does the distance need?", samples.SamplesConfig, samples.PRESETS, samples.sample_complexity
    ),
    "tradeoff": _of_gans("do better distances make better images?", gans.TRADEOFF),
    "dynamic": _of_gans("what do critics say while a generator is trained?", gans.DYNAMIC),
    "n-critic": _of_gans("what do more updates of the critic buy?", gans.N_CRITIC),
    "batch-size": _of_gans("what do larger batches buy?", gans.BATCH_SIZE),
    "discrete": _of_gans("what do convolutional critics measure, where a generator makes few images?", gans.DISCRETE),
    "images": Experiment(
        "one GAN on images, over a mesh, with samples as it goes", images.ImagesConfig, images.PRESETS, images.images
    ),
}
