"""One GAN on images by the engine: on a mesh, resumed after a kill, with grids of samples as it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np

from gan.critic import Shape, precise
from gan.experiments.pictures import grid
from gan.named import critic_of_name
from gan.objectives import CRITICS
from gan.program import by_compiler, gan_program
from gan.quality import Data as Images
from gan.quality import measures, read_data
from gan.trainer import Gan, Generator, Recipe
from training.files.atomic import write_bytes
from training.files.buckets import disk_path
from training.flags import FLAT, parse_preset, shown_as
from training.launch import LaunchConfig, hold, joined
from training.loop import Diverged, LoopConfig, Trained, Training, train
from training.mesh import Share, make_mesh
from training.partition import check_divisible
from training.program import Data, HostBatch, Program
from training.ranges import check_ranges
from training.telling import tell

SHOWN = 64


@dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """Train one GAN on images, over a mesh where there is one; the same command resumes it."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for."""
    data: str | None = None
    """None: scikit-learn's digits; else MNIST's files, a folder of pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/images"
    """Checkpoints, metrics.jsonl, loss.png and samples-STEP.png."""
    critic: Annotated[str, shown_as(f"{{{','.join(CRITICS)}}}[:SETTING=VALUE]")] = "gp"
    """The critic; docs/wgan.md says what each is. With settings: gp:weight=1, c-soft:epsilon=1:rate=1e-3."""
    network: Literal["fc", "conv"] = "conv"
    """Of critic and generator: fully connected, or DCGAN's convolutions without batch norm (sides must be even)."""
    n_critic: int = 5
    """Updates of the critic for one of the generator; a step is both."""
    rate: float = 2e-4
    """The generator's learning rate."""
    latent: int = 64
    """Numbers of the generator's noise."""
    decay: float = 0.99
    """Of the average of the generator's weights, by which samples are made."""
    scored: int = 500
    """Images held out, and as many that are generated and compared with them."""
    patch: int = 4
    """Side of the patches whose distance is measured too."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=40, batch_size=32, eval_every=20, save_every=20, eval_batches=4)
    )
    """Steps, batches and checkpoints."""
    launch: Annotated[LaunchConfig, FLAT] = field(default_factory=lambda: LaunchConfig(keep_compiled=True))
    """On what it runs; images are cut over `data` and `fsdp`, weights are whole on each device."""

    def __post_init__(self):
        critic_of_name(self.critic)
        check_ranges(self, n_critic=(1, 1001), latent=(1, 1 << 14), scored=(10, 5001), patch=(1, 65), decay=(0.0, 1.0))
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate}: it must be above 0 and below 1")
        if self.loop.accumulate != 1:
            raise ValueError("loop.accumulate must be 1: a step's batches are those of its updates")


def _loop(steps: int, every: int) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=64, eval_every=every, save_every=every, eval_batches=8)


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"loop": _loop(2_000, 500)},
    "full": {"loop": _loop(100_000, 5_000), "latent": 128, "decay": 0.999},
}


def images(config: ImagesConfig) -> Trained:
    """Runs, or resumes, the training in `config.folder`.

    Raises ValueError for data or settings that cannot be, and what training.loop.train raises.
    """
    joined(config.launch)
    with hold(config.folder, config.launch), jax.enable_x64(False):  # a run's arrays are the same wherever it goes on
        return _run(config)


def parse(args: Sequence[str] | None = None, prog: str = "python -m scripts.wgan images") -> ImagesConfig:
    """The command line's config: the flags given, and for the rest what goes with the --preset given."""
    return parse_preset(ImagesConfig, PRESETS, defaults, "smoke", args=args, prog=prog)


def defaults(preset: str) -> ImagesConfig:
    """What goes with a preset."""
    return ImagesConfig(**{"preset": preset, "folder": f"runs/wgan/images-{preset}"} | PRESETS[preset])


def plan_of(config: ImagesConfig, mesh: jax.sharding.Mesh) -> tuple[Program, LoopConfig]:
    """What the command would train, for scripts.plan."""
    return gan_program(recipe_of(config, read_data(config.data, config.scored)), config.loop.seed), config.loop


def _run(config: ImagesConfig) -> Trained:
    loop, mesh, folder = config.loop, make_mesh(config.launch.mesh), disk_path(config.folder, "--folder")
    check_divisible(mesh, {"batch size": ("batch", loop.batch_size)})
    data = read_data(config.data, config.scored)
    if len(data.train) < loop.batch_size:
        raise ValueError(f"{len(data.train)} images to train on: fewer than --loop.batch-size {loop.batch_size}")
    recipe = recipe_of(config, data)
    jax.eval_shape(recipe.init, jax.random.key(0))  # whether the images have sides that convolutions can halve
    tell(f"{len(data.train):,} images of {' x '.join(map(str, data.image))} to train on, {len(data.test):,} held out")
    about = {name: value for name, value in asdict(config).items() if name not in ("loop", "launch", "folder")}
    training = Training(
        program=gan_program(recipe, loop.seed),
        data=_batches(data, config),
        about=about,
        review=partial(review, recipe, data, config, folder),
    )
    trained = train(training, loop, mesh, folder)
    tell(
        f"{folder}: samples-STEP.png, metrics.jsonl, and loss.png, "
        "where the loss is the critic's estimate of the distance"
    )
    return trained


def _batches(data: Images, config: ImagesConfig) -> Data:
    loop, updates = config.loop, config.n_critic + 1

    def batches(first: int, share: Share) -> Iterator[HostBatch]:
        while True:
            rows = np.random.default_rng([loop.seed, first]).integers(0, len(data.train), (loop.batch_size, updates))
            yield {"images": data.train[share.of(rows)]}
            first += 1

    def heldout(share: Share) -> Iterator[HostBatch]:
        for begin in range(0, len(data.test) - loop.batch_size + 1, loop.batch_size):
            yield {"images": share.of(data.test[begin : begin + loop.batch_size])}

    # `scored` too: of those held out where it is raised, the run has trained on some.
    identity = {"images": data.fingerprint, "scored": config.scored}
    identity |= {"critic": config.critic, "n_critic": config.n_critic}
    return Data(train=batches, heldout=heldout, identity=identity)


def recipe_of(config: ImagesConfig, data: Images) -> Recipe:
    size, image = data.train.shape[1], data.image if config.network == "conv" else None
    return Recipe(
        critic=critic_of_name(config.critic)(Shape(size=size, image=image)),
        generator=Generator(size=size, latent=config.latent, image=image),
        n_critic=config.n_critic,
        rate=config.rate,
        decay=config.decay,
    )


def review(recipe: Recipe, data: Images, config: ImagesConfig, folder: Path, gan: Gan, number: int) -> dict[str, float]:
    """Measures of as many images as are held out, and a grid of them."""
    sample = lambda layers: recipe.generator.sample(layers, jax.random.key(1), len(data.test))  # noqa: E731
    made = np.asarray(jax.jit(precise(by_compiler(sample)))(gan.average))
    if not np.isfinite(made).all():
        why = f"step {number}: generated images hold no finite numbers"
        raise Diverged(number, why, "stopped. Try a lower --rate")
    if jax.process_index() == 0:
        panels = {"held out": data.test[:SHOWN], f"step {number}": made[:SHOWN]}
        write_bytes(folder / f"samples-{number}.png", grid(panels, data.image))
    return measures(data, made, config.patch)
