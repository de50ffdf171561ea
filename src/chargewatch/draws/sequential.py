"""Risk-limiting inspection: inspect until a claim about a lot is confirmed or refuted.

The claim is "at least a share t of this lot conforms". Two tests run side by side on the same
results, in the order of the uniform part of a draw: one of the hypothesis that less than t conform,
whose rejection confirms the claim, and one that at least t conform, whose rejection refutes it.
Each is a nonnegative supermartingale under its hypothesis, so by Ville's inequality the chance that
it ever exceeds 1 / risk is at most the risk: one may look after every single result, stop at any
time, or go on. Source: Stark, ALPHA, Ann. Appl. Stat. 17 (2023), sampling without replacement, with
the estimator that shrinks and is truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from chargewatch.domain.arrays import Bools, Floats
from chargewatch.draws.frame import DrawError
from chargewatch.draws.plans import at_most

CONFORMING_SHARE = 0.95
CLAIM_RISK = 0.05
SHRINK = 20.0
"""Results that the expected share weighs as much as."""
EXPECTED = 0.3
"""Where the share is expected before any result: so far of the way from the bound to 0."""


class ClaimOutcome(StrEnum):
    """What the results so far say of the claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Stand:
    """After some results: what is decided, and by which risks (each the smallest so far)."""

    outcome: ClaimOutcome
    inspected: int
    nonconforming: int
    risk_of_confirming: float
    risk_of_refuting: float


def martingale(fails: Bools, *, lot: int, bound: float, above: bool) -> Floats:
    """Return the test statistic after each result, for one row a run, shape (runs, k).

    Args:
        fails: results in the order of the draw, True: nonconforming; shape (runs, k).
        lot: number of instruments N, each drawn at most once.
        bound: share of nonconforming instruments s that the hypotheses meet at.
        above: whether the hypothesis is "more than s are nonconforming" (its rejection confirms a
            lot) or "at most s" (its rejection refutes it).

    Equation: T_j = T_{j-1} [x h / m + (1 - x)(1 - h) / (1 - m)], m = (M - S) / (N - j + 1) the
    largest mean of what is left under the hypothesis, h the expected one, kept above m; x is 1 for
    what the hypothesis says there are at most M of. Infinite once there were more.
    """
    x = np.asarray(~fails if above else fails, dtype=np.float64)
    # The hypothesis in instruments: at most so many of them are an x.
    most = at_most(bound, lot)
    most = lot - most - 1 if above else most
    runs, count = x.shape
    if count > lot:
        raise DrawError(f"{count} results of a lot of {lot}: each instrument counts once")
    hoped = 1.0 - EXPECTED * bound if above else min(3.0 * bound, 0.5 * (1.0 + bound))
    statistic = np.ones(runs)
    seen = np.zeros(runs)
    out = np.empty((runs, count))
    for j in range(count):
        left = lot - j
        mean = (most - seen) / left
        expected = (SHRINK * hoped + seen) / (SHRINK + j)
        expected = np.maximum(expected, mean + 0.5 * (1.0 - mean) / np.sqrt(SHRINK + j))
        expected = np.clip(expected, 0.0, 1.0 - 1e-9)
        with np.errstate(divide="ignore", invalid="ignore"):
            up = x[:, j] * expected / mean
            down = (1.0 - x[:, j]) * (1.0 - expected) / (1.0 - mean)
            grown = statistic * (up + down)
        # From a mean of 1 on nothing speaks against the hypothesis; at 0 only an x does.
        grown = np.where(mean >= 1.0, 0.0, grown)
        statistic = np.where((mean <= 0.0) & (x[:, j] == 0.0), statistic, grown)
        seen += x[:, j]
        statistic = np.where(seen > most, np.inf, statistic)
        out[:, j] = statistic
    return out


def stand(
    fails: Sequence[bool | None],
    *,
    lot: int,
    conforming: float = CONFORMING_SHARE,
    risk: float = CLAIM_RISK,
) -> Stand:
    """Return where a risk-limiting inspection stands.

    Args:
        fails: results in the order of the draw's uniform part, True: nonconforming; None: will
            never be known, and counts as nonconforming against the claim's confirmation, as
            conforming against its refutation.
        lot: number of instruments that were in the list.
        conforming: share of the claim.
        risk: of deciding wrongly, for either decision.

    Raises: DrawError for shares or results that can't be.
    """
    if not 0 < conforming < 1 or not 0 < risk < 1 or lot < 1:
        raise DrawError("the claimed share and the risk must lie between 0 and 1, the lot above 0")
    bound = 1.0 - conforming
    risks = []
    for above in (True, False):
        row = np.array([[above if one is None else one for one in fails]], dtype=bool)
        largest = float(martingale(row, lot=lot, bound=bound, above=above).max(initial=1.0))
        risks.append(1.0 / largest if np.isfinite(largest) else 0.0)
    confirming, refuting = risks
    outcome = ClaimOutcome.OPEN
    if refuting <= risk:
        outcome = ClaimOutcome.REFUTED
    elif confirming <= risk:
        outcome = ClaimOutcome.CONFIRMED
    return Stand(
        outcome=outcome,
        inspected=len(fails),
        nonconforming=sum(one is True for one in fails),
        risk_of_confirming=confirming,
        risk_of_refuting=refuting,
    )
