"""Alignments as files for people, and how right they are by a key."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from retrieval.matching.alphabet import is_number
from training.files.atomic import write_bytes
from training.files.errors import DataError

SHOWN = 5  # tokens of a number


class Alignment(NamedTuple):
    """Which token a number may be."""

    numbers: list[str]  # n
    tokens: list[str]  # m
    shares: np.ndarray  # float32 [n, m]: each row sums to 1, or to 0 where nothing is known

    def write(self, path: Path, counts: np.ndarray) -> None:
        """A line a number, the commonest first: number TAB count TAB token TAB share TAB next token …"""
        lines = []
        for n in np.argsort(-counts, kind="stable"):
            best = np.argsort(-self.shares[n], kind="stable")[:SHOWN]
            found = [f"{self.tokens[m]}\t{self.shares[n, m]:.3f}" for m in best if self.shares[n, m] > 0]
            lines.append("\t".join([self.numbers[n], f"{counts[n]:.0f}", *found]))
        write_bytes(path, "".join(line + "\n" for line in lines).encode())

    def best(self) -> list[str]:
        """Each number's likeliest token; "" where nothing is known."""
        places = self.shares.argmax(1)
        return [self.tokens[m] if self.shares[n, m] > 0 else "" for n, m in enumerate(places)]


class Right(NamedTuple):
    """Shares of what is aligned rightly."""

    characters: float
    text: float  # each as often as it comes


def right(alignment: Alignment, counts: np.ndarray, key: dict[str, str]) -> Right:
    """By a key, number -> token."""
    found = np.array([token == key.get(n) for n, token in zip(alignment.numbers, alignment.best(), strict=True)])
    return Right(float(found.mean()), float(found @ counts / counts.sum()))


def read_key(path: str) -> dict[str, str]:
    """number TAB character, a line each. Raises DataError, with file, line and remedy."""
    key: dict[str, str] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}; convert the file to UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        columns = line.split("\t")
        if len(columns) != 2 or not columns[1] or not is_number(columns[0]):
            raise DataError(f"{path}, line {number}: not number TAB character; mend it")
        if columns[0] in key:
            raise DataError(f"{path}, line {number}: {columns[0]} is there already; a number is one character")
        key[columns[0]] = columns[1]
    return key


def of_key(numbers: list[str], tokens: list[str], key: dict[str, str]) -> np.ndarray:
    """float32 [n, m]: what is known, as shares."""
    places = {token: m for m, token in enumerate(tokens) if token}  # some ids may be of no token
    shares = np.zeros((len(numbers), len(tokens)), np.float32)
    for n, number in enumerate(numbers):
        if (m := places.get(key.get(number, ""))) is not None:
            shares[n, m] = 1
    return shares
