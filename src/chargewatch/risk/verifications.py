"""Verifications beside what all other evidence of their connectors says.

A verification is part of the estimate of its connector, so it must not be compared with that: with
few sessions it would find itself confirmed. Its own statement is divided out first. Then either it
still holds, or the meter was tampered with since; the odds decide how much it weighs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.priors import TAMPERED_SHARE, TAMPERED_SPREAD

LEAST_ELSE = 0.03
"""Share of what is known of a connector that must be left to compare a statement with."""


@dataclass(frozen=True, kw_only=True)
class Stated:
    """Verifications that count, shape (a,)."""

    anchor: Ints  # row of `Anchors`
    connector: Ints
    value: Floats  # ln(1 + stated error)
    certificate: Floats  # variance at the time: the certificate's, and the one load it was at
    grown: Floats  # the wander since then, 1 after a year
    variance: Floats  # of the statement as of now, if it still holds
    precision: Floats  # as it enters the least squares

    def among(self, size: int) -> Stated:
        """Return those of the first connectors."""
        mine = self.connector < size
        return Stated(**{name: values[mine] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Said:
    """What some evidence says of something; mean NaN and variance infinite: nothing."""

    mean: Floats
    variance: Floats

    def where(self, mask: Bools) -> Said:
        """Return what is said where a mask holds, and nothing elsewhere."""
        return Said(
            mean=np.where(mask, self.mean, np.nan), variance=np.where(mask, self.variance, np.inf)
        )


def said(score: Floats, precision: Floats) -> Said:
    """Return what scores and precisions say."""
    told = precision > 0
    safe = np.where(told, precision, 1.0)
    return Said(mean=score / safe, variance=1.0 / safe).where(told)


def together(several: Sequence[Said]) -> Said:
    """Return what several independent statements say as one."""
    precision = [1.0 / each.variance for each in several]
    scores = [np.nan_to_num(each.mean) * p for each, p in zip(several, precision, strict=True)]
    return said(np.sum(scores, axis=0), np.sum(precision, axis=0))


def without(error: Floats, variance: Floats, *, mean: Floats, precision: Floats) -> Said:
    """Return what is known of errors without one statement that went into them.

    Equation: 1 / V' = 1 / V - w, m' = V' (m / V - w x). Nothing where less than 3 % of what is
    known would be left.

    Args:
        error: its mean, the statement included; NaN where not known.
        variance: its variance, infinite where not known.
        mean: x, what the statement says.
        precision: w, with which it went in.
    """
    known = np.isfinite(variance)
    safe = np.where(known, variance, 1.0)
    left = 1.0 / safe - precision
    known &= left > LEAST_ELSE / safe
    left = np.where(known, left, 1.0)
    rest = (np.nan_to_num(error) / safe - precision * mean) / left
    return Said(mean=rest, variance=1.0 / left).where(known)


def tampered_variance(variance: Floats) -> Floats:
    """Return the variance of a statement whose meter was tampered with since."""
    return variance + TAMPERED_SPREAD**2


def that_hold(stated: Stated, other: Said) -> Floats:
    """Return the probability that each verification still holds, shape (a,).

    Equation: P = 0.95 N(d; 0, s^2) / [0.95 N(d; 0, s^2) + 0.05 N(d; 0, s^2 + (3 %)^2)], d the
    difference from all other evidence, s^2 the sum of both variances. The prior where there is no
    other evidence.
    """
    known = np.isfinite(other.variance)
    away2 = np.where(known, (stated.value - other.mean) ** 2, 0.0)
    near = stated.variance + np.where(known, other.variance, 0.0)
    wide = tampered_variance(near)
    log = np.log(TAMPERED_SHARE / (1.0 - TAMPERED_SHARE)) + 0.5 * np.log(near / wide)
    log = log + 0.5 * away2 * (1.0 / near - 1.0 / wide)
    prior = np.full(away2.shape, 1.0 - TAMPERED_SHARE)
    return np.where(known, 1.0 / (1.0 + np.exp(np.minimum(log, 700.0))), prior)


def believed_precision(variance: Floats, holds: Floats) -> Floats:
    """Return the mean precision over "holds" and "tampered with", shape (a,)."""
    return np.asarray(holds / variance + (1.0 - holds) / tampered_variance(variance))


def with_doubt(error: Floats, variance: Floats, stated: Stated) -> tuple[Floats, Floats]:
    """Return mean and variance of errors over whether their verification still holds, (n,).

    Of several verifications of a connector the one counts that makes the largest difference.
    Equation: with P that it holds, and mean and variance (m, v) and (m', v') either way:
    P m + (1 - P) m', P v + (1 - P) v' + P (1 - P) (m - m')^2.

    Args:
        error: by own evidence, shape (n,); NaN where not known.
        variance: shape (n,).
        stated: verifications; those of connectors before a step are left out.
    """
    stated = stated.among(error.size)
    who, value, held = stated.connector, stated.value, stated.variance
    other = without(error[who], variance[who], mean=value, precision=stated.precision)
    told = np.isfinite(other.variance)
    holds = that_hold(stated, other)[told]
    who, value, held = who[told], value[told], held[told]
    means, variances = [], []
    for stated_variance in (held, tampered_variance(held)):
        total = 1.0 / other.variance[told] + 1.0 / stated_variance
        means.append((other.mean[told] / other.variance[told] + value / stated_variance) / total)
        variances.append(1.0 / total)
    between = holds * (1.0 - holds) * (means[0] - means[1]) ** 2
    # The last of a connector's rows counts.
    order = np.argsort(between, kind="stable")
    out, spread = error.copy(), variance.copy()
    out[who[order]] = (holds * means[0] + (1.0 - holds) * means[1])[order]
    spread[who[order]] = (holds * variances[0] + (1.0 - holds) * variances[1] + between)[order]
    return out, spread
