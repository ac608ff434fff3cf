"""Do critics that come nearer to the distance make better generators?

A cell is one (critic, n_critic, batch), all its seeds at once: a GAN trained on one part of the images. On its way the critic's own
estimate is set beside the exact distance of the same minibatches, and generated images beside the held-out part: by exact W1, Fréchet
distance, precision, recall and blur.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan.critics import CRITICS, Shape
from gan.estimate import over_seeds, seed_keys
from gan.experiments.pictures import grid
from gan.experiments.report import Panel, number, write_report
from gan.quality import Features, blur, features_of, frechet, precision_recall
from gan.trainer import Gan, Generator, Recipe
from gan.transport import exact_w1
from training.experiment import Estimate, estimate_runs, keep_settings, png, run_cells
from training.images import Images, read_images, split_images
from training.lock import locked
from training.page import Section, Table
from training.ranges import check_ranges
from training.step import compiler_options
from training.whole import write_bytes

ASKED = 8  # minibatches of which the estimate and the exact distance are the mean
SHOWN = 64  # generated images that are kept
MEASURES = ("ratio", "objective", "exact", "held_out", "patches", "frechet", "precision", "recall", "blur")
VARIED = ("network", "n_critic", "batch")


@dataclass(frozen=True, kw_only=True)
class GansConfig:
    """Train a GAN on images with each critic, and set the accuracy of its distance beside the quality of what it makes."""

    preset: Literal["smoke", "cpu", "full"] = "smoke"
    """What the other defaults are for: under a minute, minutes on a laptop, or more steps and seeds."""
    data: str | None = None
    """None: scikit-learn's digits; else MNIST's files, a folder of pictures, an .npz or tfds:NAME."""
    folder: str = "runs/wgan/tradeoff"
    """Where everything goes; report.html is the result."""
    critics: tuple[str, ...] = ("gp", "c", "exact")
    """Critics; docs/wgan.md says what each is."""
    network: tuple[Literal["fc", "conv"], ...] = ("fc",)
    """Fully connected critics, or convolutional ones; both are compared."""
    n_critic: tuple[int, ...] = (5,)
    """Updates of the critic for one of the generator; several are compared."""
    batch: tuple[int, ...] = (64,)
    """Images of an update; several are compared."""
    steps: int = 200
    """Updates of the generator."""
    seeds: int = 2
    """Independent repeats, trained at once."""
    readings: int = 4
    """Times that everything is measured on the way."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers, of fully connected critics and generators."""
    features: tuple[int, ...] = (32, 64, 128)
    """Of the convolutions of convolutional critics, each of stride 2."""
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
        ranges = {"steps": 1, "seeds": (1, 1001), "readings": (1, 10_001), "latent": (1, 1 << 14), "scored": (10, 5001)}
        ranges |= {"codes": (0, 1 << 14), "patch": (1, 65)}
        check_ranges(self, **ranges, decay=(0.0, 1.0))
        for name, least in (
            ("critics", None),
            ("network", None),
            ("n_critic", 1),
            ("batch", 2),
            ("hidden", 1),
            ("features", 1),
        ):
            given = getattr(self, name)
            if not given or name not in ("hidden", "features") and len({*given}) < len(given):
                raise ValueError(f"{name} is {given}: give one or more, each once")
            if least and not all(least <= x <= 1 << 14 for x in given):
                raise ValueError(f"{name} is {given}: numbers from {least} to {1 << 14}")
        if unknown := [x for x in self.critics if x not in CRITICS]:
            raise ValueError(f"critic {unknown[0]!r}: it must be one of {', '.join(CRITICS)}")


EVERY = tuple(name for name in CRITICS if name not in ("sn-detached", "mm", "mm-reverse"))
TRADEOFF: dict[str, dict[str, Any]] = {
    "smoke": {},
    "cpu": {"critics": EVERY, "steps": 1_500, "seeds": 5},
    "full": {"critics": tuple(CRITICS), "steps": 6_000, "seeds": 5, "readings": 6},
}
DYNAMIC = {
    name: {"folder": "runs/wgan/dynamic", "readings": readings} | rest
    for name, readings, rest in (
        ("smoke", 4, {}),
        ("cpu", 15, {"steps": 3_000, "seeds": 3}),
        ("full", 30, {"steps": 12_000, "seeds": 5}),
    )
}
N_CRITIC = {
    name: {"folder": "runs/wgan/n-critic", "critics": ("gp", "c")} | rest
    for name, rest in {
        "smoke": {"n_critic": (1, 5), "steps": 100},
        "cpu": {"n_critic": (1, 5, 20), "steps": 1_000, "seeds": 3},
        "full": {"n_critic": (1, 5, 20, 100), "steps": 3_000, "seeds": 5},
    }.items()
}
BATCH_SIZE = {
    name: {"folder": "runs/wgan/batch-size"} | rest
    for name, rest in {
        "smoke": {"critics": ("exact",), "batch": (16, 128)},
        "cpu": {"batch": (16, 64, 256), "steps": 1_000, "seeds": 3},
        "full": {"batch": (16, 64, 256, 898), "steps": 4_000, "seeds": 5},
    }.items()
}


DISCRETE = {
    name: {"folder": "runs/wgan/discrete", "critics": ("gp",), "network": ("fc", "conv"), "codes": 64} | rest
    for name, rest in {
        "smoke": {"steps": 60},
        "cpu": {"steps": 2_000, "seeds": 3},
        "full": {"critics": ("gp", "c", "exact"), "steps": 10_000, "seeds": 5},
    }.items()
}


class Data(NamedTuple):
    train: np.ndarray  # [n, D]
    test: np.ndarray  # [scored, D]
    features: Features
    image: tuple[int, int, int]


def gans(config: GansConfig, say: Callable = print) -> None:
    """Runs, or goes on with, the experiment in `config.folder`. Raises ValueError for data or settings that cannot be."""
    data, folder = read_data(config.data, config.scored), Path(config.folder)
    if len(data.train) < max(config.batch):
        raise ValueError(f"{len(data.train)} images to train on: fewer than --batch {max(config.batch)}")
    with locked(folder):
        free = ("preset", "folder", "critics", *VARIED, "data")
        settings = {k: v for k, v in asdict(config).items() if k not in free}
        keep_settings(folder / "settings.json", settings | {"images": [len(data.train), *data.image]})
        paths = {
            cell: folder / "cells" / f"{'-'.join(map(str, cell))}.json"
            for cell in product(config.critics, config.network, config.n_critic, config.batch)
        }
        cells = run_cells(paths, lambda cell: measure(data, *cell, config, paths[cell].with_suffix(".npz")), "GAN")
        say(report(folder, data, cells, config))


def read_data(name: str | None, held: int) -> Data:
    images: Images = read_images(name)
    test, train = split_images(images, held)
    flat = [part.pixels.reshape(len(part.labels), -1) for part in (train, test)]
    return Data(*flat, features_of(flat[0], train.labels), images.pixels.shape[1:])


def measure(
    data: Data, critic: str, network: str, n_critic: int, batch: int, config: GansConfig, samples: Path
) -> dict[str, Any]:
    """One cell, and some of the images that its generators make, in `samples`."""
    size = data.train.shape[1]
    recipe = Recipe(
        critic=CRITICS[critic](
            Shape(size=size, image=data.image, hidden=config.features)
            if network == "conv"
            else Shape(size=size, hidden=config.hidden)
        ),
        generator=Generator(size=size, latent=config.latent, hidden=config.hidden, codes=config.codes),
        n_critic=n_critic,
        decay=config.decay,
    )
    curve, made = [], np.zeros(0)
    for step, told, made in train(recipe, data.train, batch=batch, config=config):
        each = [measures(data, images, config.patch) for images in made]
        rows = {name: [m[name] for m in each] for name in each[0]} | told
        rows["ratio"] = (np.array(told["objective"]) / np.array(told["exact"])).tolist()
        curve.append({"step": step, **rows})
    write_npz(samples, made[:, :SHOWN])
    return {
        "critic": critic,
        "network": network,
        "n_critic": n_critic,
        "batch": batch,
        "certified": recipe.critic.certified,
        "curve": curve,
    }


def train(
    recipe: Recipe, images: np.ndarray, *, batch: int, config: GansConfig
) -> Iterator[tuple[int, dict[str, list[float]], np.ndarray]]:
    """(step, what critics and exact transport say of minibatches, each [seeds], generated images [seeds, scored, D]).

    Ends early where a generator is no longer finite: what it then made is not measured.
    """
    real, chunk = jnp.asarray(images), -(-config.steps // config.readings)
    begin, train_keys, test_keys = seed_keys(config.seeds)

    def rows(key: jax.Array, count: int) -> jax.Array:
        return real[jax.random.randint(key, (count, batch), 0, len(real))]

    def run(gan: Gan, key: jax.Array, first: jax.Array, count: int) -> Gan:
        def body(gan: Gan, step: jax.Array):
            draw, own = jax.random.split(jax.random.fold_in(key, step))
            return recipe.step(gan, rows(draw, recipe.n_critic + 1), own)[0], None

        return jax.lax.scan(body, gan, first + jnp.arange(count))[0]

    def ask(gan: Gan, key: jax.Array) -> tuple[jax.Array, ...]:
        draw, noise, images = jax.random.split(key, 3)
        x = rows(draw, ASKED)
        y = jax.vmap(lambda k: recipe.generator.sample(gan.generator, k, batch))(jax.random.split(noise, ASKED))
        told = jax.lax.map(lambda pair: recipe.critic.read(gan.critic, *pair), (x, y))
        objective = told.get("objective", told["kr"])
        return (
            jnp.mean(told["kr"]),
            jnp.mean(objective),
            x,
            y,
            recipe.generator.sample(gan.average, images, config.scored),
        )

    options = compiler_options()
    advance = jax.jit(
        lambda gan, first, count: over_seeds(lambda g, k: run(g, k, first, count), gan, train_keys),
        static_argnums=2,
        donate_argnums=0,
        compiler_options=options,
    )
    look = jax.jit(lambda gan: over_seeds(ask, gan, test_keys), compiler_options=options)
    gan = jax.jit(jax.vmap(recipe.init))(begin)
    for first in range(0, config.steps, chunk):
        gan = advance(gan, first, count := min(chunk, config.steps - first))
        kr, objective, x, y, made = map(np.asarray, look(gan))
        if not np.isfinite(made).all() or not np.isfinite(kr).all():
            raise ValueError(f"step {first + count}: the generator or its critic is no finite number; lower the rate")
        exact = [float(np.mean([exact_w1(*pair) for pair in zip(*of, strict=True)])) for of in zip(x, y, strict=True)]
        yield first + count, {"kr": kr.tolist(), "objective": objective.tolist(), "exact": exact}, made


def patches(images: np.ndarray, image: tuple[int, int, int], side: int, count: int = 1000) -> np.ndarray:
    """[count, side * side * channels], cut at random places out of images [n, D]."""
    height, width, channels = image
    side = min(side, height, width)
    rng = np.random.default_rng(0)
    which, row, column = (rng.integers(0, most, count) for most in (len(images), height - side + 1, width - side + 1))
    at = np.arange(side)
    rows, columns = (row[:, None] + at)[:, :, None], (column[:, None] + at)[:, None]
    return images.reshape(-1, *image)[which[:, None, None], rows, columns].reshape(count, side * side * channels)


def measures(data: Data, made: np.ndarray, patch: int) -> dict[str, float]:
    """Of one set of images against the held-out ones."""
    precision, recall = precision_recall(data.test, made)
    return {
        "held_out": exact_w1(data.test, made),
        "patches": exact_w1(*(patches(z, data.image, patch) for z in (data.test, made))),
        "frechet": frechet(*(data.features(z) for z in (data.test, made))),
        "precision": precision,
        "recall": recall,
        "blur": blur(made),
    }


def references(data: Data, patch: int) -> dict[str, dict[str, float]]:
    """What real images score, and the centres of clusters of them."""
    from sklearn.cluster import KMeans

    count = min(len(data.train), len(data.test))
    clusters = KMeans(min(64, count), n_init=1, random_state=0).fit(data.train)
    centres = clusters.cluster_centers_[clusters.labels_[:count]]  # as often as images are near them
    return {
        "real images": measures(data, data.train[:count], patch),
        "64 cluster centres": measures(data, centres, patch),
    }


def report(folder: Path, data: Data, cells: Sequence[Mapping[str, Any]], config: GansConfig) -> str:
    """tradeoff.md, .csv, .json and report.html; returns the tables."""
    varied = [name for name in VARIED if len(getattr(config, name)) > 1]
    label = lambda c: ", ".join([c["critic"], *(f"{name} {c[name]}" for name in varied)])  # noqa: E731
    found = {label(c): {m: estimate_runs(c["curve"][-1][m]) for m in MEASURES} for c in cells}
    known = references(data, config.patch)
    rows = [[name, *(number(e[m]) for m in MEASURES)] for name, e in found.items()]
    rows += [[name, "", "", "", *(number(m[k]) for k in MEASURES[3:])] for name, m in known.items()]
    heads = (
        "critic",
        "ratio",
        "own objective",
        "exact, batch",
        "W1, held out",
        "W1, patches",
        "Fréchet",
        "precision",
        "recall",
        "blur",
    )
    sections = [
        Section(
            "tradeoff",
            "Accuracy of the distance, and quality of the images",
            "ratio = the critic's own estimate / the exact distance of the same minibatch",
            "A dot is a seed, a cross a mean with its interval. W1 to held-out images is exact; that of the laws is unknown.",
            _scatter(cells, found, known, label),
            table=Table(heads, rows),
        )
    ]
    if varied and varied[-1] != "network":
        sections.append(
            Section(
                "varied",
                f"By {varied[-1]}",
                "the same runs",
                "Means and intervals over seeds.",
                _lines(cells, varied[-1], label),
            )
        )
    sections += [
        Section(
            f"curves-{n}",
            f"{name}: on the way",
            "estimate, exact minibatch, held out",
            f"Estimate over exact in the end: {found[name]['ratio'].text(2)}.",
            Panel(
                title=name,
                curves={
                    head: [(e["step"], estimate_runs(e[m])) for e in cell["curve"]]
                    for head, m in (
                        ("critic's estimate", "objective"),
                        ("exact, same minibatches", "exact"),
                        ("exact, held out", "held_out"),
                    )
                },
                lines={"real images, held out": known["real images"]["held_out"]},
                label="W1",
            ).picture(),
        )
        for n, (name, cell) in enumerate(zip(found, cells, strict=True))
    ]
    sections.append(
        Section(
            "samples",
            "What the generators make",
            "of the first seed, after the last step",
            "Rows of averages look soft and alike; the data are the first panel.",
            _samples(folder, data, cells, label),
        )
    )
    columns = ("critic", *VARIED, "seed", "step", "kr", *MEASURES)
    return write_report(
        folder, "tradeoff", "Better distances, better images?", sections, config, cells, columns=columns, line=_line
    )


def _line(cell: Mapping[str, Any]) -> Iterator[list[Any]]:
    for entry in cell["curve"]:
        for seed in range(len(entry["kr"])):
            yield [
                *(cell[name] for name in ("critic", *VARIED)),
                seed,
                entry["step"],
                *(entry[m][seed] for m in ("kr", *MEASURES)),
            ]


def _scatter(cells, found: Mapping[str, Mapping[str, Estimate]], known, label: Callable) -> bytes:
    from matplotlib.figure import Figure

    shown = {
        "frechet": "Fréchet distance",
        "precision": "precision",
        "recall": "recall",
        "blur": "blur",
        "held_out": "W1 to held-out images",
        "patches": "W1 of patches",
    }
    figure = Figure(figsize=(14, 7), layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(2, 3).flat, shown.items(), strict=True):
        for place, cell in enumerate(cells):
            name, last, color = label(cell), cell["curve"][-1], f"C{place % 10}"
            x, y = found[name]["ratio"], found[name][measure]
            axes.plot(last["ratio"], last[measure], ".", color=color, alpha=0.5)
            spans = [[[e.mean - e.low], [e.high - e.mean]] for e in (y, x)]
            marker = "x" if place < 10 else "+"
            axes.errorbar([x.mean], [y.mean], *spans, fmt=marker, color=color, label=name, markersize=8, capsize=2)
        for style, (name, values) in zip(("--", ":"), known.items(), strict=True):
            axes.axhline(values[measure], color="k", linestyle=style, linewidth=1, label=name)
        axes.axvline(1, color="0.7", linewidth=1)
        axes.set(xlabel="estimate / exact distance of the minibatch", title=title)
        axes.set_xlim(left=0, right=max(1.2, min(3, axes.get_xlim()[1])))
        axes.grid(alpha=0.3)
    figure.axes[0].set_yscale("log")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8)
    return png(figure)


def _lines(cells, varied: str, label: Callable) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (measure, title) in zip(
        figure.subplots(1, 3),
        (("ratio", "estimate / exact"), ("frechet", "Fréchet distance"), ("held_out", "W1, held out")),
        strict=True,
    ):
        for name in dict.fromkeys(c["critic"] for c in cells):
            its = [c for c in cells if c["critic"] == name]
            values = [estimate_runs(c["curve"][-1][measure]) for c in its]
            mean, low, high = np.array(values).T
            axes.errorbar([c[varied] for c in its], mean, [mean - low, high - mean], marker="o", capsize=2, label=name)
        axes.set(xlabel=varied, title=title, xscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return png(figure)


def _samples(folder: Path, data: Data, cells, label: Callable) -> bytes:
    panels = {"held-out images": data.test[:SHOWN]}
    for cell in cells:
        with np.load(
            folder / "cells" / f"{'-'.join(str(cell[name]) for name in ('critic', *VARIED))}.npz", allow_pickle=False
        ) as file:
            panels[label(cell)] = file["images"][0] / 255
    return grid(panels, data.image)


def write_npz(path: Path, images: np.ndarray) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.uint8(np.round(255 * images)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, file.getvalue())
