"""Noise of a feeder's slots: its covariance, its scales and the auxiliaries' wander.

n = e_k + q_k - q_{k-1}: e is white, q sits at the boundaries of slots (resolution of the feeder's
register, interpolation), so successive errors are anticorrelated and long spans lose nothing. The
covariance is tridiagonal; rows are whitened by its Cholesky recursion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.domain.times import SLOT_S, SLOTS_A_DAY
from chargewatch.risk.priors import FLOOR_WH, LOAD_NOISE

SLOT_H = SLOT_S / 3600.0
KNOT_SLOTS = 8
"""Slots between the knots of the auxiliaries' wander: two hours."""
WANDER = SLOT_H * np.maximum(
    0.0,
    1.0
    - np.abs(np.arange(SLOTS_A_DAY)[:, None] + 0.5 - KNOT_SLOTS * np.arange(SLOTS_A_DAY // 8 + 1))
    / KNOT_SLOTS,
)
"""Energy in each slot per watt at each knot, linear in between, shape (96, 13)."""
STRANGE = 3.0
"""A day whose residuals are so many times the usual ones is not believed."""
STRANGE_GROWTH = 1.3
SPAN = 8
"""Slots in the spans from which noise is judged: two hours."""


def whitened(values: Floats, white: Floats, boundary: Floats, present: Bools) -> Floats:
    """Return rows whose noise is white with unit variance; absent rows are zero.

    Args:
        values: rows, shape (b, t, p).
        white: variance of e, shape (b, t).
        boundary: variance of q at the beginning of each slot, shape (b, t + 1).
        present: shape (b, t).

    Equation: covariance C_kk = white_k + q_k + q_{k+1}, C_{k,k-1} = -q_k; F_k = C_kk - q_k^2 /
    F_{k-1}, y_k = x_k + (q_k / F_{k-1}) y_{k-1}, whitened y_k / sqrt(F_k).
    """
    out = np.zeros_like(values)
    last_factor = np.full(values.shape[0], np.inf)
    last_row = np.zeros((values.shape[0], values.shape[2]))
    for k in range(values.shape[1]):
        q = boundary[:, k]
        ratio = q / last_factor
        factor = white[:, k] + q + boundary[:, k + 1] - q * ratio
        row = values[:, k] + ratio[:, None] * last_row
        here = present[:, k]
        out[:, k] = np.where(here[:, None], row / np.sqrt(factor)[:, None], 0.0)
        last_factor = np.where(here, factor, np.inf)
        last_row = row
    return out


@dataclass(frozen=True)
class Wander:
    """The auxiliaries' wander of a day given the other unknowns: mean - response x, (b, k)."""

    mean: Floats
    response: Floats  # (b, k, p)
    variance: Floats


def without_wander(rows: Floats, variance: Floats) -> tuple[Floats, Floats, Wander]:
    """Return the normal equations of whitened rows with the day's wander integrated out.

    Args:
        rows: columns of the unknowns, of the wander and the reference, shape (b, t, p + k + 1).
        variance: of the wander at its knots, W^2, shape (b,).

    Equation: Schur complement, N - C (D + 1 / variance)^-1 C'.
    """
    k = WANDER.shape[1]
    full = rows.transpose(0, 2, 1) @ rows
    p = full.shape[1] - k - 1
    own = full[:, p:-1, p:-1].copy()
    index = np.arange(k)
    own[:, index, index] += 1.0 / variance[:, None]
    inverse = np.linalg.inv(own)
    coupling = full[:, p:-1, :p]
    response = inverse @ coupling
    mean = (inverse @ full[:, p:-1, -1:])[..., 0]
    matrix = full[:, :p, :p] - coupling.transpose(0, 2, 1) @ response
    vector = full[:, :p, -1] - np.einsum("bkp,bk->bp", coupling, mean)
    return (
        0.5 * (matrix + matrix.transpose(0, 2, 1)),
        vector,
        Wander(mean, np.asarray(response), np.asarray(inverse[:, index, index])),
    )


def noise_scales(
    residual: Floats,
    total: Floats,
    *,
    interpolation: Floats,
    present: Bools,
    step: Floats,
    early: Bools,
    before: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Return the white noise's idle variance, Wh^2 a slot, and load factor of each feeder, (b,).

    Both from sums over spans of two hours: there the anticorrelated part cancels but for its ends,
    and what lasts as long as a session counts in full.

    Args:
        residual: of the slots, Wh, shape (b, t).
        total: energy of the connectors, Wh, shape (b, t).
        interpolation: variance from interpolation, Wh^2, shape (b, t).
        present: shape (b, t).
        step: variance of one rounding of the meter's register, Wh^2, shape (b,).
        early: feeders whose solution still follows the data too closely for spans: the larger of
            the values from spans and from single slots holds, shape (b,).
        before: the two scales as known until now, NaN for never.
    """
    found = []
    for length in (1, SPAN):
        shape = (residual.shape[0], residual.shape[1] // length, length)
        sums, energy = (x.reshape(shape).sum(axis=2) for x in (residual, total))
        whole = present.reshape(shape).all(axis=2)
        idle = (spread(sums, whole & (energy <= 0)) - 2.0 * step) / length
        idle = np.where(np.isnan(idle), before[0], np.maximum(idle, FLOOR_WH**2))
        white = ((LOAD_NOISE * total) ** 2).reshape(shape).sum(axis=2)
        ends = interpolation.reshape(shape)[..., [0, -1]].mean(axis=2)
        known = length * np.nan_to_num(idle, nan=FLOOR_WH**2) + 2.0 * step
        rest = np.maximum(sums**2 - known[:, None], 0.0)
        loaded = whole & (energy > 0)
        ratio = np.sqrt(np.where(loaded, rest / np.where(loaded, white + ends, 1.0), 0.0))
        found.append((idle, np.clip(spread(ratio, loaded), 0.02, 100.0)))
    idle, factor = (
        np.where(early, np.fmax(one, many), np.where(np.isnan(many), one, many))
        for one, many in zip(*found, strict=True)
    )
    return (
        blended(before[0], idle, fallback=FLOOR_WH**2),
        blended(before[1], factor, fallback=1.0),
    )


def spread(residual: Floats, mask: Bools) -> Floats:
    """Return the robust variance (1.4826 MAD)^2 of rows per feeder, NaN for fewer than 3 rows."""
    masked = np.where(mask, np.abs(residual), np.nan)
    masked[mask.sum(axis=1) < 3] = np.nan
    quiet = np.isnan(masked).all(axis=1)
    masked[quiet] = 0.0
    return np.where(quiet, np.nan, (1.4826 * np.nanmedian(masked, axis=1)) ** 2)


def blended(old: Floats, new: Floats, *, fallback: float) -> Floats:
    """Return a slowly moving scale: the old one with a fifth of the new one."""
    mixed = np.where(np.isnan(old), new, np.where(np.isnan(new), old, 0.8 * old + 0.2 * new))
    return np.where(np.isnan(mixed), fallback, mixed)


def strange_days(residual: Floats, usual: Floats, *, present: Bools) -> Bools:
    """Return the feeders whose day can't be explained by their connectors, shape (b,).

    Outliers are slots; when most slots with energy are, as beside a register that stands still or
    tells another unit, no weight finds what is left. Equation: 1.4826 median |r / sigma| > 3, sigma
    the feeder's usual noise.

    Args:
        residual: of the slots, Wh, shape (b, t).
        usual: variance of a slot as known before the day, Wh^2, shape (b, t).
        present: shape (b, t).
    """
    return np.nan_to_num(spread(residual / np.sqrt(usual), present)) > STRANGE**2


def kept_scale(old: Floats, new: Floats, *, seen: Bools, strange: Bools) -> Floats:
    """Return the scale of noise to go on with, shape (b,).

    A day without rows leaves it; a strange one raises it by a little, so that a feeder whose noise
    has grown for good is believed again after some days.
    """
    return np.where(strange, STRANGE_GROWTH * old, np.where(seen, new, old))
