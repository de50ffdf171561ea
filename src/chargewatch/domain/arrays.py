"""Kinds of arrays that are passed around (a shape stands where each is made), and their sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def sum_by_row(row: Ints, values: Floats, *, size: int) -> Floats:
    """Return the sums of values by row, shape (size,), added in the order they come."""
    return np.bincount(row, weights=values, minlength=size).astype(np.float64, copy=False)


def by_row(rows: Floats, matrix: Floats) -> Floats:
    """Return rows (n, t) times a matrix (t, k), each row by itself.

    No bit of a row depends on which others stand beside it, as it does where all are one product.
    """
    return np.asarray((rows[:, None, :] @ matrix)[:, 0])


def sums_between(values: Floats, first: Ints, last: Ints) -> Floats:
    """Return the sum of values[first:last] of each pair, added from these values alone.

    Differences of one running sum would carry the rounding of everything before them: a single
    absurd value would reach into every later sum.

    Args:
        values: shape (n,).
        first: first row of each sum, shape (k,).
        last: one after the last row of each sum, first <= last <= n, shape (k,).
    """
    if not first.size:
        return np.zeros(0)
    # reduceat adds what lies between two sums too: in their order that is little.
    order = np.argsort(first, kind="stable")
    edges = np.column_stack([first[order], last[order]]).ravel()
    sums = np.empty(first.size)
    sums[order] = np.add.reduceat(np.append(values, 0.0), edges)[::2]
    return np.where(last > first, sums, 0.0)
