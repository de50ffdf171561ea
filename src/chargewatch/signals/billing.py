"""Facts of checks: finished sessions, and how their bills compare with their registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints
from chargewatch.domain.rollover import metered_energy
from chargewatch.signals.baseline import FromZero, from_zero
from chargewatch.signals.rule import SIMULATED, Limit
from chargewatch.signals.sessions import BILLING_STEP_WH, BilledSessions

LOSS_SESSIONS = Limit(5, "sessions", "a ratio is one only over several", SIMULATED)
LOSS_RATIO_STEP = Limit(0.002, "", "how far from 1 a loss ratio is", SIMULATED)


def billing_tolerance(resolution_wh: Floats) -> Floats:
    """Return how far a bill may be from the register, Wh; resolution 0 or NaN: not known."""
    resolution = np.where(resolution_wh > 0, resolution_wh, 1.0)
    return np.asarray(np.maximum(BILLING_STEP_WH.value, 2 * resolution))


@dataclass(frozen=True, kw_only=True)
class Billing:
    """Sessions with their bills; each is of one kind at most: from zero, unit, loss or mismatch.

    A connector whose differing sessions keep to one ratio (at least 5 of them, four of five
    within 0.1 % and a billing step of their median) bills by a loss ratio; what differs
    otherwise is a mismatch, and a factor of 1,000 is a unit fault.
    """

    sessions: BilledSessions
    resolution_wh: Floats
    """Of each session's connector, shape (s,)."""
    rated_w: Floats
    """Likewise; NaN: not known."""

    @cached_property
    def metered_wh(self) -> Floats:
        """Energy by the register, which may have rolled over."""
        sessions = self.sessions
        return metered_energy(
            sessions.start_wh,
            sessions.stop_wh,
            span_s=np.maximum(sessions.ended_s - sessions.started_s, 0.0),
            rated_w=self.rated_w,
        )

    @cached_property
    def from_zero(self) -> FromZero:
        """Sessions that count from the register's zero, without a look at readings."""
        return from_zero(
            self.sessions,
            tolerance_wh=self.tolerance_wh,
            rated_w=self.rated_w,
            at_begin_wh=np.full(self.rated_w.size, np.nan),
        )

    @cached_property
    def tolerance_wh(self) -> Floats:
        """How far the bill may be from the register."""
        return billing_tolerance(self.resolution_wh)

    @cached_property
    def ratio(self) -> Floats:
        """Billed over metered energy; NaN where nothing was metered."""
        metered = self.metered_wh
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(metered > 0, self.sessions.billed_wh / metered, np.nan)

    @cached_property
    def _is_off(self) -> Bools:
        off = np.abs(self.sessions.billed_wh - self.metered_wh) > self.tolerance_wh
        return np.asarray(off & ~self.from_zero.is_so)

    @cached_property
    def is_unit(self) -> Bools:
        """The bill is 1,000 times too large or small."""
        ratio = self.ratio
        near = (np.abs(ratio / 1000 - 1) < 0.02) | (np.abs(ratio * 1000 - 1) < 0.02)
        return np.asarray(self._is_off & near)

    @cached_property
    def loss_ratio(self) -> Floats:
        """The one ratio that a session's connector bills by; NaN where there is none."""
        return _one_ratio(
            self.sessions.connector,
            self.ratio,
            self._is_off & ~self.is_unit,
            slack=self.tolerance_wh / np.fmax(self.metered_wh, 1),
        )

    @cached_property
    def is_mismatch(self) -> Bools:
        """The bill differs otherwise."""
        return np.asarray(self._is_off & ~self.is_unit & np.isnan(self.loss_ratio))


def _one_ratio(connector: Ints, ratio: Floats, off: Bools, *, slack: Floats) -> Floats:
    """Return their connector's one ratio for differing sessions that keep to it, else NaN."""
    median = np.full(ratio.size, np.nan)
    rows = np.flatnonzero(off & np.isfinite(ratio))
    rows = rows[np.argsort(connector[rows], kind="stable")]
    edges = np.append(np.flatnonzero(np.diff(connector[rows], prepend=-1)), rows.size)
    for start, end in pairwise(edges):
        group = rows[start:end]
        if group.size < LOSS_SESSIONS.value:
            continue
        middle = float(np.median(ratio[group]))
        near = np.abs(ratio[group] - middle) <= 0.001 + slack[group]
        if abs(middle - 1) >= LOSS_RATIO_STEP.value and near.mean() >= 0.8:
            median[group[near]] = middle
    return median
