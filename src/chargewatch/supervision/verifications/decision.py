"""Pass or fail of one load, with the uncertainty told, and of the whole verification.

Rule: simple acceptance while U is at most a third of the limit (ILAC-G8:09/2019, 4.2.1 with the
condition of OIML and JCGM 106:2012, 8.2.3 on the measuring capability); where U is more, a guard
band of U on both sides (ILAC-G8:09/2019, 4.2.2; JCGM 106:2012, 8.3): within the limit less U
passes, beyond the limit plus U fails, between them nothing is decided. ISO/IEC 17025:2017, 7.8.6
asks that the rule be told: it is kept with each verification.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from chargewatch.domain.mpe import LimitRow

SIMPLE_UP_TO = 1.0 / 3.0
"""Share of the limit up to which the expanded uncertainty is left out of the comparison."""
RULE = "ILAC-G8:09/2019: simple acceptance for U <= MPE/3, else guard bands of U"


class PointVerdict(StrEnum):
    """What one load says."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """The uncertainty leaves it open."""
    NO_LIMIT = "no_limit"
    """No confirmed limit in this band, so nothing is decided."""


class VerificationResult(StrEnum):
    """What a verification says of its pile."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    UNDECIDED = "undecided"


def point_verdict(
    relative_error: float, *, expanded_uncertainty: float, limit: LimitRow | None
) -> PointVerdict:
    """Return what an error says against a limit, all fractions; a limit itself passes."""
    if limit is None or limit.limit is None or not limit.decides:
        return PointVerdict.NO_LIMIT
    size, mpe = abs(relative_error), limit.limit
    simple = expanded_uncertainty <= SIMPLE_UP_TO * mpe * (1.0 + 1e-12)
    guard = 0.0 if simple else expanded_uncertainty
    if size <= mpe - guard:
        return PointVerdict.PASS
    return PointVerdict.FAIL if size > mpe + guard else PointVerdict.INCONCLUSIVE


def whole_result(verdicts: Sequence[PointVerdict]) -> VerificationResult:
    """Return what all loads say together.

    One that fails is enough. Passed is what passed at one load at least and is open at none; loads
    without a limit neither help nor harm.
    """
    if PointVerdict.FAIL in verdicts:
        return VerificationResult.FAIL
    if PointVerdict.PASS in verdicts and PointVerdict.INCONCLUSIVE not in verdicts:
        return VerificationResult.PASS
    return VerificationResult.UNDECIDED
