"""Do critics that come nearer to the distance make better generators?

A cell is one (critic, network, n_critic, batch) with all its seeds: a GAN trained on one part of the images. On its way
the critic's own estimate is set beside the exact distance of the same minibatches, and generated images beside the
held-out part: by exact W1, Fréchet distance, precision, recall, coverage and blur.
"""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gan.critic import Shape, precise
from gan.experiments.gans_report import SHOWN, VARIED, fits, report, samples_of
from gan.named import check_critics, critic_of_name
from gan.networks import halvings
from gan.objectives import CRITICS
from gan.quality import Data, measures, read_data
from gan.trainer import Gan, Generator, Recipe
from gan.training import over_seeds, seed_keys
from gan.transport import exact_w1
from training.experiment.cells import experiment, run_cells
from training.files.atomic import write_bytes
from training.files.buckets import disk_path
from training.ranges import check_lists, check_ranges
from training.step import compiler_options
from training.telling import tell

Network = Literal["fc", "conv", "patches"]
ASKED = 8  # minibatches of which the estimate and the exact distance are the mean


@dataclass(frozen=True, kw_only=True)
class GansConfig:
    """Train a GAN on images with each critic,
    and set the accuracy of its distance beside the quality of what it makes."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for: under a minute, minutes on a laptop, or more steps and seeds."""
    data: str | None = None
    """None: scikit-learn's digits; else MNIST's files, a folder of pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/tradeoff"
    """Where everything goes; report.html is the result."""
    critics: tuple[str, ...] = ("gp", "c", "exact")
    """Critics; of ortho, aol, sll, sn and sn-detached what is read is certified, and of the first three what steps are
    taken by; docs/wgan.md says what each is. With settings: gp:weight=1 c-soft:epsilon=1:rate=1e-3."""
    network: tuple[Network, ...] = ("fc",)
    """Fully connected critics, convolutional ones, or means over patches of --patch pixels a side;
    several are compared."""
    n_critic: tuple[int, ...] = (5,)
    """Updates of the critic for one of the generator; several are compared."""
    batch: tuple[int, ...] = (64,)
    """Images of an update; several are compared."""
    steps: int = 200
    """Updates of the generator."""
    seeds: int = 2
    """Independent repeats."""
    readings: int = 4
    """Times that everything is measured on the way."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers, of fully connected critics and generators."""
    features: tuple[int, ...] = ()
    """Of the convolutions of convolutional critics, each of stride 2, or of the hidden layers over a patch; () is 32,
    64, 128, of convolutions as many as the sides can be halved."""
    rate: float = 2e-4
    """The generator's learning rate."""
    latent: int = 64
    """Numbers of the generator's noise."""
    codes: int = 0
    """Above 0: the generator is given so many fixed noises and no others, and makes as many images."""
    patch: int = 4
    """Side of the patches whose distance is measured too."""
    decay: float = 0.99
    """Of the average of the generator's weights, by which images for the measures are made."""
    scored: int = 500
    """Images held out, and as many that are generated and compared with them."""

    def __post_init__(self):
        check_ranges(self, steps=1, seeds=(1, 1001), readings=(1, 10_001), latent=(1, 1 << 14), scored=(10, 5001))
        check_ranges(self, codes=(0, 1 << 14), patch=(1, 65), decay=(0.0, 1.0), rate=(0.0, 1.0))
        counts = range(1, (1 << 14) + 1)
        check_critics(self)
        check_lists(self, network=get_args(Network), n_critic=counts, batch=counts[1:])
        check_lists(self, repeated=True, hidden=counts)
        if self.features:
            check_lists(self, repeated=True, features=counts)


EVERY = tuple(name for name in CRITICS if name not in ("sn-detached", "mm", "mm-reverse"))
TRADEOFF: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"critics": EVERY, "steps": 1_500, "seeds": 5},
    "full": {"critics": tuple(CRITICS), "steps": 6_000, "seeds": 5, "readings": 6},
}
DYNAMIC: dict[str, dict[str, Any]] = {
    "smoke": {"readings": 4},
    "cpu": {"readings": 15, "steps": 3_000, "seeds": 3},
    "full": {"readings": 30, "steps": 12_000, "seeds": 5},
}
_TWO: dict[str, Any] = {"critics": ("gp", "c")}
N_CRITIC: dict[str, dict[str, Any]] = {
    "smoke": _TWO | {"n_critic": (1, 5), "steps": 100},
    "cpu": _TWO | {"n_critic": (1, 5, 20), "steps": 1_000, "seeds": 3},
    "full": _TWO | {"n_critic": (1, 5, 20, 100), "steps": 3_000, "seeds": 5},
}
BATCH_SIZE: dict[str, dict[str, Any]] = {
    "smoke": {"critics": ("exact",), "batch": (16, 128)},
    "cpu": {"batch": (16, 64, 256), "steps": 1_000, "seeds": 3},
    "full": {"batch": (16, 64, 256, 898), "steps": 4_000, "seeds": 5},
}
_FEW_IMAGES: dict[str, Any] = {"critics": ("gp",), "network": ("fc", "conv", "patches"), "codes": 64}
DISCRETE: dict[str, dict[str, Any]] = {
    "smoke": _FEW_IMAGES | {"steps": 20, "readings": 2, "features": (16, 32)},
    "cpu": _FEW_IMAGES | {"steps": 2_000, "seeds": 3},
    "full": _FEW_IMAGES | {"critics": ("gp", "c", "exact"), "steps": 10_000, "seeds": 5},
}


def gans(config: GansConfig, question: str = "do better distances make better images?") -> None:
    """Runs, or goes on with, the experiment in `config.folder`.
    Raises ValueError for data or settings that cannot be."""
    data, folder = read_data(config.data, config.scored), disk_path(config.folder, "--folder")
    if len(data.train) < max(config.batch):
        raise ValueError(f"{len(data.train)} images to train on: fewer than --batch {max(config.batch)}")
    recipes = {
        cell: recipe_of(data, *cell, config)
        for cell in product(config.critics, config.network, config.n_critic, config.batch)
    }
    free = ("preset", "folder", "critics", *VARIED, "data")
    settings = {k: v for k, v in asdict(config).items() if k not in free}
    with experiment(folder, settings | {"images": data.fingerprint}):

        def make(cell: tuple[str, Network, int, int]) -> dict[str, Any]:
            return measure(data, recipes[cell], *cell, config, samples_of(folder, cell))

        cells = {samples_of(folder, cell).stem: cell for cell in recipes}
        made = run_cells(folder, cells, make, "GAN", fits)
        tell(report(folder, data, made, config, question))
        made.complete()


def recipe_of(data: Data, critic: str, network: str, n_critic: int, batch: int, config: GansConfig) -> Recipe:
    """Raises ValueError for a critic that the images cannot have."""
    size = data.train.shape[1]
    default = (32, 64, 128)
    shapes = {
        "fc": Shape(size=size, hidden=config.hidden),
        "conv": Shape(size=size, image=data.image, hidden=config.features or default[: halvings(data.image)]),
        "patches": Shape(size=size, image=data.image, hidden=config.features or default, patch=config.patch),
    }
    generator = Generator(size=size, latent=config.latent, hidden=config.hidden, codes=config.codes)
    made = Recipe(
        critic=critic_of_name(critic)(shapes[network]),
        generator=generator,
        n_critic=n_critic,
        rate=config.rate,
        decay=config.decay,
    )
    jax.eval_shape(made.init, jax.random.key(0))  # refused now, and not after the cells before it
    return made


def measure(
    data: Data,
    recipe: Recipe,
    critic: str,
    network: str,
    n_critic: int,
    batch: int,
    config: GansConfig,
    samples: Path,
) -> dict[str, Any]:
    """One cell, and some of the images that its generators make, in `samples`."""
    curve: list[dict[str, Any]] = []
    made: np.ndarray = np.zeros(0)
    for step, told, made in train(recipe, data.train, batch=batch, config=config):
        each = [measures(data, images, config.patch) for images in made]
        rows = {name: [m[name] for m in each] for name in each[0]} | told
        rows["ratio"] = (np.array(told["objective"]) / np.array(told["exact"])).tolist()
        curve.append({"step": step, **rows})
    names = {"critic": critic, "network": network, "n_critic": n_critic, "batch": batch}
    names |= {"constraint": recipe.critic.constraint}
    if not curve or curve[-1]["step"] < config.steps:
        return names | {
            "stopped": min((len(curve) + 1) * -(-config.steps // config.readings), config.steps),
            "curve": curve,
        }
    write_npz(samples, made[:, :SHOWN])
    return names | {"stopped": None, "curve": curve}


def train(
    recipe: Recipe, images: np.ndarray, *, batch: int, config: GansConfig
) -> Iterator[tuple[int, dict[str, list[float]], np.ndarray]]:
    """(step, what critics and exact transport say of minibatches, each [seeds], generated images [seeds, scored, D]).

    Not by the engine, since all seeds are one program, which draws its own batches.

    Ends early where a generator, or what its critic says, is no longer finite: what it then made is not measured.
    """
    real, chunk = jnp.asarray(images), -(-config.steps // config.readings)
    begin, train_keys, test_keys = seed_keys(config.seeds)

    def rows(key: jax.Array, count: int) -> jax.Array:
        return real[jax.random.randint(key, (count, batch), 0, len(real))]

    def run(gan: Gan, key: jax.Array, first: jax.Array, count: int) -> Gan:
        def body(gan: Gan, step: jax.Array) -> tuple[Gan, None]:
            draw, own = jax.random.split(jax.random.fold_in(key, step))
            return recipe.step(gan, rows(draw, recipe.n_critic + 1), own)[0], None

        return jax.lax.scan(body, gan, first + jnp.arange(count))[0]

    def ask(gan: Gan, key: jax.Array) -> tuple[jax.Array, ...]:
        draw, noise, images = jax.random.split(key, 3)
        x = rows(draw, ASKED)
        y = jax.vmap(lambda k: recipe.generator.sample(gan.generator, k, batch))(jax.random.split(noise, ASKED))
        critic = recipe.critic.settle(gan.critic)
        told = jax.lax.map(lambda pair: recipe.critic.read(critic, *pair), (x, y))
        objective = told.get("objective", told["kr"])
        return (
            jnp.mean(told["kr"]),
            jnp.mean(objective),
            recipe.critic.bound(gan.critic) if recipe.critic.bound else jnp.full((), jnp.nan),
            x,
            y,
            recipe.generator.sample(gan.average, images, config.scored),
        )

    options = compiler_options()

    @partial(jax.jit, static_argnames="count", donate_argnames="gan", compiler_options=options)
    @precise
    def advance(gan: Gan, first: jax.Array, count: int) -> Gan:
        return over_seeds(lambda g, k: run(g, k, first, count), gan, train_keys)

    @partial(jax.jit, compiler_options=options)
    @precise
    def look(gan: Gan) -> tuple[jax.Array, ...]:
        return over_seeds(ask, gan, test_keys)

    gan = jax.jit(precise(jax.vmap(recipe.init)))(begin)
    for first in range(0, config.steps, chunk):
        gan = advance(gan, first, count := min(chunk, config.steps - first))
        kr, objective, bound, x, y, made = map(np.asarray, look(gan))
        if not all(np.isfinite(told).all() for told in (made, kr, objective)):
            return
        exact = [
            float(np.mean([exact_w1(*pair, recipe.critic.metric) for pair in zip(*of, strict=True)]))
            for of in zip(x, y, strict=True)
        ]
        told = {"kr": kr.tolist(), "objective": objective.tolist(), "exact": exact}
        yield first + count, told | ({"bound": bound.tolist()} if recipe.critic.bound else {}), made


def write_npz(path: Path, images: np.ndarray) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.uint8(np.round(255 * images)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, file.getvalue())
