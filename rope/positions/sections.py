"""Several axes share the frequencies of one: M-RoPE of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191, section 2.1), in
which a token of text, of an image or of a video has three coordinates, time, height and width.

Text has all three alike, and is turned just as by 1-D rotary positions; scores see differences alone on every axis.
Interleaved, as Qwen3-VL has it (Bai et al. 2025, arXiv 2511.21631), no axis is left with the slow pairs only.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rope.positions.angles import SINUSOIDAL, frequencies


def section_axes(sections: Sequence[int], interleaved: bool = False) -> np.ndarray:
    """[F]: which of the A axes turns each pair; sections[a] pairs for axis a.

    One axis after the other from the fastest pair on; interleaved: 0, 1, 2, 0, 1, 2, …, and axis 0 for what remains.
    Raises ValueError for no pairs, and for sections of which another axis than 0 has too many to be interleaved.
    """
    counts = np.asarray(sections)
    if not len(sections) or counts.min() < 0 or not counts.sum():
        raise ValueError(f"sections are {tuple(sections)}: give each axis its number of pairs")
    if not interleaved:
        return np.repeat(np.arange(len(counts)), counts)
    axes = np.zeros(counts.sum(), int)
    for axis, count in enumerate(counts[1:], 1):
        places = axis + len(counts) * np.arange(count)
        if count and places[-1] >= len(axes):
            raise ValueError(f"sections are {tuple(sections)}: interleaved, axis {axis} would go beyond the last pair")
        axes[places] = axis
    return axes


def section_frequencies(
    size: int, sections: Sequence[int], theta: str = SINUSOIDAL, *, interleaved: bool = False
) -> jax.Array:
    """[A, F] for heads of `size`: each pair is turned at its 1-D frequency, by one axis. Qwen2-VL has heads of 128 and
    sections (16, 24, 24). Raises ValueError as `section_axes`, and for sections that are not H / 2 pairs."""
    axes = section_axes(sections, interleaved)
    if 2 * len(axes) != size:
        raise ValueError(f"sections are {tuple(sections)}, {len(axes)} pairs: a head of {size} has {size / 2:g}")
    return jnp.asarray(np.arange(len(sections))[:, None] == axes) * frequencies(size, theta)[None]


def sequence_positions(parts: Sequence[int | tuple[int, int, int]]) -> np.ndarray:
    """int [T, 3]: time, height and width of the tokens of a sequence of texts, each its number of tokens, and of
    images or videos, each (frames, rows, columns).

    A part begins one after the largest coordinate so far, so a grid counts as long as its longest side.
    """
    found, start = [np.zeros((0, 3), int)], 0
    for part in parts:
        if isinstance(part, tuple):
            cells = np.stack(np.meshgrid(*map(np.arange, part), indexing="ij"), -1).reshape(-1, 3)
        else:
            cells = np.repeat(np.arange(part)[:, None], 3, 1)
        found.append(cells + start)
        start = int(found[-1].max(initial=start - 1)) + 1
    return np.concatenate(found)
