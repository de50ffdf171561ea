"""How well changes explain what meters and vehicles say: by normal and by Student noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.change_votes import DRIFT, STEP, Taken, VoteTable, design_of
from chargewatch.risk.priors import CHANGE_TAIL_DEGREES, GARBAGE_SHARE, GARBAGE_SPREAD

TAME_STEPS, MODE_STEPS = 4, 3
FREE_LEVEL_PRECISION = 1.0
"""Prior of a level, 1 / (100 %)^2: none, but a witness without votes must not divide by zero."""
PORTION_VALUES = 150_000
_LOG_TAME = float(
    gammaln((CHANGE_TAIL_DEGREES + 1.0) / 2.0)
    - gammaln(CHANGE_TAIL_DEGREES / 2.0)
    - 0.5 * np.log(np.pi * CHANGE_TAIL_DEGREES)
    + np.log(1.0 - GARBAGE_SHARE)
)


def _suffix(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values[:, ::-1], axis=1)[:, ::-1])


def normal_log_factors(
    score: Sequence[tuple[Floats, Floats]], *, spread: Floats
) -> tuple[Floats, Floats]:
    """Return the logs of the Bayes factors of a step and of a drift from each day on, (n, d).

    Args:
        score: of each witness the precision of each day, and precision x estimate, shape (n, d).
        spread: prior standard deviation of the size, shape (n,).

    Equation: each witness has information I_k = sum p f^2 - (sum p f)^2 / sum p on s and the score
    b_k = sum p f x - sum p f sum p x / sum p; with sums over witnesses,
    ln B = b^2 / (I + 1 / spread^2) / 2 - ln(1 + I spread^2) / 2.
    """
    n, days = score[0][0].shape
    column = np.arange(days)
    ahead = np.maximum(days - column, 1)
    middle = column + 0.5
    information, told = np.zeros((2, n, days)), np.zeros((2, n, days))
    for p, px in score:
        total = p.sum(axis=1)[:, None]
        safe = np.where(total > 0, total, 1.0)
        mean = px.sum(axis=1)[:, None] / safe
        y = px - p * mean
        s0, s1, s2 = _suffix(p), _suffix(p * middle), _suffix(p * middle**2)
        y0, y1 = _suffix(y), _suffix(y * middle)
        information[STEP] += s0 - s0**2 / safe
        told[STEP] += y0
        rise = s1 - column * s0
        information[DRIFT] += (s2 - 2.0 * column * s1 + column**2 * s0 - rise**2 / safe) / ahead**2
        told[DRIFT] += (y1 - column * y0) / ahead
    information = np.maximum(information, 0.0)
    wide = spread[:, None] ** 2
    out = 0.5 * told**2 / (information + 1.0 / wide) - 0.5 * np.log1p(information * wide)
    return out[STEP], out[DRIFT]


def log_likelihood(squared: Floats, variance: Floats) -> Floats:
    """Return the log density of votes whose squared residuals over their variance are given.

    Equation: ln[(1 - w) t_nu(r / sqrt(v)) / sqrt(v) + w N(r; 0, v + wild^2)].
    """
    tame = (
        _LOG_TAME
        - 0.5 * (CHANGE_TAIL_DEGREES + 1.0) * np.log1p(squared / CHANGE_TAIL_DEGREES)
        - 0.5 * np.log(variance)
    )
    wide = variance + GARBAGE_SPREAD**2
    wild = (
        np.log(GARBAGE_SHARE) - 0.5 * np.log(2.0 * np.pi * wide) - 0.5 * squared * variance / wide
    )
    return np.asarray(np.logaddexp(tame, wild))


def _slopes(squared: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the weight w of votes, d ln L / dr = -w r / v, and v times the curvature, >= 0."""
    wide = variance + GARBAGE_SPREAD**2
    student = (CHANGE_TAIL_DEGREES + 1.0) / (CHANGE_TAIL_DEGREES + squared)
    log = _LOG_TAME - np.log(GARBAGE_SHARE) + 0.5 * np.log(2.0 * np.pi * wide / variance)
    log = log - 0.5 * (CHANGE_TAIL_DEGREES + 1.0) * np.log1p(squared / CHANGE_TAIL_DEGREES)
    log += 0.5 * squared * variance / wide
    good = 1.0 / (1.0 + np.exp(-np.clip(log, -50.0, 50.0)))
    other = variance / wide
    weight = good * student + (1.0 - good) * other
    bent = student - 2.0 * squared * student**2 / (CHANGE_TAIL_DEGREES + 1.0)
    curvature = good * bent + (1.0 - good) * other
    # Where it is not clear which of the two a vote is, the log density bends the other way.
    curvature = curvature - good * (1.0 - good) * squared * (student - other) ** 2
    return weight, np.maximum(curvature, 0.0)


def student_log_evidence(
    value: Floats, variance: Floats, known: Bools, *, design: Floats, prior: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the log evidence of linear models with such noise, by Laplace's method.

    Args:
        value: shape (m, t).
        variance: > 0, shape (m, t).
        known: which are votes at all, shape (m, t).
        design: shape (m, k, t).
        prior: precisions of the k unknowns around zero, shape (m, k).

    Returns: log evidence (m,); the unknowns at the mode (m, k) and their covariance (m, k, k).
    """
    index = np.arange(design.shape[1])
    root = np.where(known, 1.0 / np.sqrt(variance), 0.0)
    scaled = design * root[:, None, :]
    told = value * root
    both = np.concatenate([scaled, told[:, None, :]], axis=1).transpose(0, 2, 1)

    def normal(weight: Floats) -> Floats:
        matrix = (scaled * weight[:, None, :]) @ both
        matrix[:, index, index] += prior
        return np.asarray(matrix)

    weight = np.ones(value.shape)
    for turn in range(TAME_STEPS + MODE_STEPS):
        matrix = normal(weight)
        mode = np.linalg.solve(matrix[..., :-1], matrix[..., -1:])
        squared = (told - (mode.transpose(0, 2, 1) @ scaled)[:, 0]) ** 2
        # First as if nothing were wild: a few votes of a new level must not be given up at once.
        if turn < TAME_STEPS - 1:
            weight = (CHANGE_TAIL_DEGREES + 1.0) / (CHANGE_TAIL_DEGREES + squared)
        else:
            weight, curvature = _slopes(squared, variance)
    mode = mode[..., 0]
    bent = normal(curvature)[..., :-1]
    log = np.where(known, log_likelihood(squared, variance), 0.0).sum(axis=1)
    log += 0.5 * (np.log(prior) - prior * mode**2).sum(axis=1)
    log -= 0.5 * np.linalg.slogdet(bent)[1]
    covariance = np.asarray(np.linalg.inv(bent), dtype=np.float64)
    return np.asarray(log), np.asarray(mode, dtype=np.float64), covariance


def evidence(
    table: VoteTable, rows: Ints, changes: Taken, *, spread: Floats, days: int
) -> tuple[Floats, Floats, Floats]:
    """Return `student_log_evidence` of models of rows with changes, a portion at a time."""
    step = max(1, PORTION_VALUES // (table.at.shape[1] * (2 + changes.begin.shape[1]) + 1))
    k = changes.begin.shape[1]
    logs, modes, covariances = [np.zeros(0)], [np.zeros((0, 2 + k))], [np.zeros((0, 2 + k, 2 + k))]
    for first in range(0, rows.size, step):
        part = slice(first, first + step)
        mine = rows[part]
        prior = np.full((mine.size, 2 + k), FREE_LEVEL_PRECISION)
        prior[:, 2:] = spread[mine, None] ** -2.0
        found = student_log_evidence(
            table.value[mine],
            table.variance[mine],
            table.known[mine],
            design=design_of(table, mine, changes.begin[part], changes.shape[part], days=days),
            prior=prior,
        )
        for out, value in zip((logs, modes, covariances), found, strict=True):
            out.append(value)
    return np.concatenate(logs), np.concatenate(modes), np.concatenate(covariances)
