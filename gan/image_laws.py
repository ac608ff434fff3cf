"""Pairs of laws of images, as gan.laws has those of points: of images that are there, and of drawn ones."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from gan.laws import EXACT, Law, Pair, clouds, outward
from gan.metric import lengths
from gan.transport import exact_w1
from training.files.images import Images, split_images
from training.ranges import check_number


def finite(name: str, x: np.ndarray, y: np.ndarray) -> Law:
    """Two sets of images, [n, H, W, channels] and [m, H, W, channels]. Their own distance is exact; what they were
    drawn from is unknown."""
    height, width, channels = x.shape[1:]
    x, y = (z.reshape(len(z), -1) for z in (x, y))
    w1 = exact_w1(x, y) if max(len(x), len(y)) <= EXACT else None
    return replace(clouds(name, x, y), w1=w1, image=(height, width, channels))


def _of_square(side: int) -> int:
    return max(round(0.3 * side), 1)


def squares(side: int = 64) -> Law:
    """Black images, P's with one white square at a place drawn uniformly: however it lies, its length is its side."""
    check_number("side", side, 2)
    size = _of_square(side)

    def sample(key: jax.Array, count: int) -> Pair:
        corners = jax.random.randint(key, (count, 2, 1), 0, side - size + 1)
        there = jnp.arange(side)[None, None]
        rows, columns = jnp.moveaxis((corners <= there) & (there < corners + size), 1, 0)
        x = (rows[:, :, None] & columns[:, None]).reshape(count, -1).astype(jnp.float32)
        return x, jnp.zeros_like(x)

    return Law(f"squares {side}", side * side, sample, float(size), outward, lengths, image=(side, side, 1))


def classes(images: Images) -> Law:
    """Images of the first half of the labels and those of the other
    (Mallasto, Montúfar, Gerolin 2019, arXiv 1910.03875)."""
    labels = np.unique(images.labels)
    if len(labels) == 1:
        raise ValueError("the images have one label: their classes cannot be set against each other; take halves")
    first = images.labels < labels[(len(labels) + 1) // 2]
    return finite("classes", images.pixels[first], images.pixels[~first])


def halves(images: Images) -> Law:
    """The images' two halves by a hash of their pixels:
    samples of one law, whose distance is that of finite data alone."""
    different = len(np.unique(images.pixels.reshape(len(images.labels), -1), axis=0))
    if different < 2:
        raise ValueError("all images are one: they have no halves")
    second, first = split_images(images, different // 2)
    return finite("halves", first.pixels, second.pixels)


def marked(images: Images) -> Law:
    """Images, P's with a white square added in the upper left corner: any law moved by m is |m| away, the root of the
    values that are added to."""
    count, height, width, channels = images.pixels.shape
    size = _of_square(min(height, width))
    mark = np.zeros((height, width, channels), np.float32)
    mark[:size, :size] = 1
    move, points = jnp.asarray(mark.ravel()), jnp.asarray(images.pixels.reshape(count, -1))
    w1 = size * math.sqrt(channels)

    def sample(key: jax.Array, count: int) -> Pair:
        first, second = (jax.random.randint(k, (count,), 0, len(points)) for k in jax.random.split(key))
        return points[first] + move[None], points[second]

    return Law(
        "marked",
        len(move),
        sample,
        w1,
        gradient=lambda x: jnp.broadcast_to(move[None] / w1, x.shape),
        potential=lambda x: jnp.matmul(x, move / w1, precision=jax.lax.Precision.HIGHEST),
        image=(height, width, channels),
    )
