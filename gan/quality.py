"""How good generated images are, by measures that need no download: Fréchet distance, coverage, blur and the like.

None of them is W1, and W1 in pixels is none of them:
a set of averages can be nearer to the data in W1 than the data's own sample.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from gan.transport import exact_w1
from training.files.errors import DataError
from training.files.images import Images, fingerprint, read_images, split_images

Features = Callable[[np.ndarray], np.ndarray]  # images [n, D] -> [n, F]
UNITS = 128
ROUNDING = 1e-4  # distance up to which two points are one
MOST = 10_000  # images that the classifier is trained on


def features_of(x: np.ndarray, labels: np.ndarray, seed: int = 0) -> Features:
    """The hidden units of scikit-learn's classifier of these images;
    random ReLU units where it has too few of a label to learn."""
    counts = np.unique(labels[:MOST], return_counts=True)[1]
    if len(counts) > 1 and min(counts) > 1 and sum(counts) >= 10 * len(counts):  # a tenth is set aside, with each label
        net = MLPClassifier((UNITS,), random_state=seed, max_iter=60, early_stopping=True)
        with warnings.catch_warnings(), threadpool_limits(1, "blas"):  # products this small wait for threads alone
            warnings.simplefilter("ignore", ConvergenceWarning)  # features need no converged classifier
            net.fit(x[:MOST], labels[:MOST])
        kernel, bias = net.coefs_[0], net.intercepts_[0]
    else:
        kernel = np.random.default_rng(seed).normal(0, (2 / x.shape[1]) ** 0.5, (x.shape[1], UNITS))
        bias = -(x.mean(0) @ kernel)
    return lambda images: np.maximum(images @ kernel + bias, 0)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features [n, F] (Heusel et al. 2017, arXiv 1706.08500)."""
    first, second = (np.cov(z, rowvar=False) for z in (a, b))
    # The root's trace by eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric:
    # units that are always 0 do no harm.
    values, vectors = np.linalg.eigh(first)
    half = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    root = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ second @ half), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * root)


def balls(points: np.ndarray, neighbours: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(centres [m, D], radii [m]): the distinct points of [n, D], and how far from each its k-th neighbour is.

    Points that rounding alone keeps apart are one: a point that comes often would be its own neighbour, of radius 0.
    """
    same = NearestNeighbors(radius=ROUNDING).fit(points).radius_neighbors(points, return_distance=False)
    distinct = points[[number == min(alike) for number, alike in enumerate(same)]]
    index = NearestNeighbors(n_neighbors=min(neighbours + 1, len(distinct))).fit(distinct)
    return distinct, index.kneighbors(distinct)[0][:, -1]  # the nearest is the point itself


def _within(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """bool [n, m]: is the point in the ball?"""
    squares = (points**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * points @ centres.T
    return np.sqrt(np.maximum(squares, 0)) <= radii


def precision_recall(real: np.ndarray, made: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """The part of made points within some real point's k-th neighbour, and of real within a made one's
    (Kynkäänniemi et al. 2019, arXiv 1904.06991).

    Few distinct made points have large balls: recall compares sets of about as many, coverage any.
    """
    precision, recall = (
        float(_within(points, *balls(by, neighbours)).any(1).mean()) for points, by in ((made, real), (real, made))
    )
    return precision, recall


def coverage(real: np.ndarray, made: np.ndarray, neighbours: int = 3) -> float:
    """The part of real points that have a made one within their k-th real neighbour
    (Naeem et al. 2020, arXiv 2002.09797): however few or many are made, the balls are the same."""
    return float(_within(made, *balls(real, neighbours)).any(0).mean())


def blur(x: np.ndarray) -> float:
    """The mean of x (1 - x): 0 of black and white, more the greyer."""
    return float((x * (1 - x)).mean())


class Data(NamedTuple):
    train: np.ndarray  # [n, D]
    test: np.ndarray  # [scored, D]
    features: Features
    image: tuple[int, int, int]  # (height, width, channels)
    fingerprint: str


def read_data(name: str | None, held: int) -> Data:
    """Images to train on and `held` others, by a hash of their pixels. Raises DataError, and ValueError for too few."""
    images: Images = read_images(name)
    try:
        test, train = split_images(images, held)
    except DataError as error:
        raise DataError(f"{error} (--scored)") from None
    if len(train.labels) < 10:
        raise ValueError(f"{len(train.labels)} images are left to train on, {held} are held out: lower --scored")
    seen, unseen = (part.pixels.reshape(len(part.labels), -1) for part in (train, test))
    height, width, channels = images.pixels.shape[1:]
    return Data(seen, unseen, features_of(seen, train.labels), (height, width, channels), fingerprint(images))


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
        "patches": exact_w1(patches(data.test, data.image, patch), patches(made, data.image, patch)),
        "frechet": frechet(*(data.features(z) for z in (data.test, made))),
        "precision": precision,
        "recall": recall,
        "coverage": coverage(data.test, made),
        "blur": blur(made),
    }


def references(data: Data, patch: int, centres: int = 64) -> dict[str, dict[str, float]]:
    """What real images score, and the centres of clusters of them."""
    from sklearn.cluster import KMeans

    count = min(len(data.train), len(data.test))
    clusters = KMeans(min(centres, count), n_init=1, random_state=0).fit(data.train)
    drawn = clusters.cluster_centers_[clusters.labels_[:count]]  # as often as images are near them
    return {
        "real images": measures(data, data.train[:count], patch),
        f"{len(clusters.cluster_centers_)} cluster centres": measures(data, drawn, patch),
    }
