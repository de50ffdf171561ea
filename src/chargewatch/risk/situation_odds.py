"""What makes a difference between situations a real one, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.risk.priors import SITUATION_SHARE, SITUATION_SIZE_MPE
from chargewatch.risk.situations import FAMILY_OF, FIRST, IN_WINDOW, WINDOWS, Window

LEAST_LOG_ODDS = float(np.log(20.0))
LEAST_SIZE_MPE = 0.5
"""A smaller difference is no situation to report."""
APART_Z = 3.0
LARGEST_DIFFERENCE = 0.2
"""A larger one is a fault in the data, such as energy that nobody told, and no meter's error."""
LEAST_ENERGY_SHARE = 0.05
"""A window with less of the energy, or all but so much of it, is none."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What one kind of evidence says of connectors and windows, shape (c, w)."""

    difference: Floats  # of ln(1 + error)
    u: Floats  # infinite: nothing

    def rows(self, some: slice | Ints) -> Differences:
        """Return what is said of some connectors."""
        return Differences(difference=self.difference[some], u=self.u[some])


def nothing_told(connectors: int) -> Differences:
    """Return what is told of connectors without such evidence."""
    shape = (connectors, len(WINDOWS))
    return Differences(difference=np.zeros(shape), u=np.full(shape, np.inf))


def together(first: Differences, second: Differences) -> Differences:
    """Return what two kinds of evidence say together; less surely where they disagree.

    Equation: the weighted mean; where they are apart by more than three standard deviations of
    that, u is stretched by the excess. Slots tell power only roughly, to feeder and sessions in
    different ways, so sizes that differ are still of one thing.
    """
    p, q = first.u**-2.0, second.u**-2.0
    both = (p > 0) & (q > 0)
    total = np.where(p + q > 0, p + q, 1.0)
    mean = (p * first.difference + q * second.difference) / total
    apart = np.where(both, first.difference - second.difference, 0.0)
    z2 = apart**2 / np.where(both, first.u**2 + second.u**2, 1.0)
    u = np.where(p + q > 0, np.sqrt(np.maximum(z2 / APART_Z**2, 1.0) / total), np.inf)
    return Differences(difference=mean, u=u)


def log_odds(told: Differences, mpe: Floats, *, energy_share: Floats, kept: Bools) -> Floats:
    """Return log odds of N(0, size^2) against 0, shape (c, w); families alike, windows alike.

    Args:
        told: differences and their uncertainties.
        mpe: shape (c, 1).
        energy_share: of each window, shape (c, w).
        kept: windows that may be told, shape (c, w); all others have odds of 0.
    """
    d, u = told.difference, np.where(np.isfinite(told.u), told.u, 1e6)
    size = SITUATION_SIZE_MPE * mpe
    wide = u**2 + size**2
    log_bayes = 0.5 * d**2 * (1.0 / u**2 - 1.0 / wide) + 0.5 * np.log(u**2 / wide)
    of_family = np.bincount(FAMILY_OF)
    fair = np.isfinite(told.u) & kept
    fair &= (energy_share > LEAST_ENERGY_SHARE) & (energy_share < 1.0 - LEAST_ENERGY_SHARE)
    fair &= (np.abs(d) > LEAST_SIZE_MPE * mpe) & (np.abs(d) < LARGEST_DIFFERENCE)
    prior = np.log(SITUATION_SHARE / of_family.size / of_family[FAMILY_OF])
    return np.where(fair, log_bayes + prior, -np.inf)


@dataclass(frozen=True, kw_only=True)
class Conditional:
    """A connector's error in a window, less that outside; s bins in the window's family."""

    connector: int
    window: Window
    difference: float  # of ln(1 + error)
    u: float
    log_odds: float
    shares: tuple[float, ...]  # of the connector's energy by bin, (s,)
    days: int

    @property
    def grades(self) -> Floats:
        """By how much each bin is in the window, (s,)."""
        return self.window.grade[FIRST[self.window.family] : FIRST[self.window.family + 1]]

    @property
    def energy_share(self) -> float:
        """Share of the connector's energy that is in the window."""
        return float(np.array(self.shares) @ self.grades)

    @property
    def level(self) -> float:
        """Mean of 1 + error over all energy, by what it is outside the window."""
        return 1.0 / float(np.array(self.shares) @ np.exp(-self.difference * self.grades))


def conditional(
    connector: int, w: int, told: Differences, odds: float, *, energy: Floats, days: int
) -> Conditional:
    """Return a connector's error in window w.

    Args:
        connector: its row.
        w: place among `WINDOWS`.
        told: of this window, shapes ().
        odds: their logarithm.
        energy: of the connector by bin, shape (SIZE,).
        days: in the window.
    """
    family = WINDOWS[w].family
    mine = energy[FIRST[family] : FIRST[family + 1]]
    return Conditional(
        connector=connector,
        window=WINDOWS[w],
        difference=float(told.difference),
        u=float(told.u),
        log_odds=odds,
        shares=tuple((mine / max(float(mine.sum()), 1e-9)).tolist()),
        days=days,
    )


def energy_shares(energy: Floats) -> Floats:
    """Return the share of connectors' energy in each window, shape (c, w), of energies by bin."""
    whole = energy[:, FIRST[0] : FIRST[1]].sum(axis=1)
    return np.asarray(energy @ IN_WINDOW.T / np.where(whole > 0, whole, 1.0)[:, None])
