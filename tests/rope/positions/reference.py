"""Attention in float64 NumPy, one head of one row at a time, and its gradients by their formulas."""

import numpy as np


def attention64(query, key, value, *, bias=None, mask=None, scale, scores=None):
    """[B, T, N, H] from query [B, T, N, H], key and value [B, S, K, H]; bias and mask broadcast to [B, N, T, S].

    `scores(b, n)` gives a head's scaled scores [T, S] by other means.
    """
    return _run(query, key, value, bias, mask, scale, scores)[0]


def gradients64(cotangent, query, key, value, *, bias=None, mask=None, scale):
    """Of sum(cotangent * attention64(...)) in query, key, value and a bias [1 or B, N, T, S] (of one without)."""
    query, key, value, cotangent = (np.asarray(x, np.float64) for x in (query, key, value, cotangent))
    _, weights = _run(query, key, value, bias, mask, scale, None)
    share = query.shape[2] // key.shape[2]
    of_query, of_key, of_value = (np.zeros(x.shape) for x in (query, key, value))
    of_bias = np.zeros((1 if bias is None else np.shape(bias)[0], *weights.shape[1:]))
    for b, n in np.ndindex(query.shape[0], query.shape[2]):
        g, w = n // share, weights[b, n]
        of_value[b, :, g] += w.T @ cotangent[b, :, n]
        of_weights = cotangent[b, :, n] @ value[b, :, g].T
        of_scores = w * (of_weights - (w * of_weights).sum(-1, keepdims=True))
        if mask is not None:
            of_scores = np.where(_of(mask, weights.shape, b, n), of_scores, 0)
        of_bias[b % len(of_bias), n] += of_scores
        of_query[b, :, n] = scale * of_scores @ key[b, :, g]
        of_key[b, :, g] += scale * of_scores.T @ query[b, :, n]
    return of_query, of_key, of_value, of_bias


def _of(x, shape, b, n):
    return np.broadcast_to(np.asarray(x), shape)[b, n]


def _run(query, key, value, bias, mask, scale, scores):
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    weights, out, share = np.zeros(shape), np.zeros((*query.shape[:3], value.shape[3])), query.shape[2] // key.shape[2]
    for b, n in np.ndindex(shape[:2]):
        found = scale * query[b, :, n] @ key[b, :, n // share].T if scores is None else scores(b, n)
        found = found + (0 if bias is None else _of(bias, shape, b, n).astype(np.float64))
        found = found if mask is None else np.where(_of(mask, shape, b, n), found, -1e9)
        raised = np.exp(found - found.max(-1, keepdims=True))
        weights[b, n] = raised / raised.sum(-1, keepdims=True)
        out[b, :, n] = weights[b, n] @ value[b, :, n // share]
    return out, weights


def rotate64(x, positions, theta, layout="interleaved"):
    """[B, T, N, H] turned by positions [B, T] and frequencies [F], as complex numbers."""
    x = np.asarray(x, np.float64)
    turn = np.exp(1j * np.asarray(positions, np.float64)[:, :, None, None] * np.asarray(theta, np.float64))
    first, second = (x[..., 0::2], x[..., 1::2]) if layout == "interleaved" else np.split(x, 2, -1)
    turned = (first + 1j * second) * turn
    parts = turned.real, turned.imag
    return np.stack(parts, -1).reshape(x.shape) if layout == "interleaved" else np.concatenate(parts, -1)
