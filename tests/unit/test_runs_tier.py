"""The tier of a connector, case by case (metrology.md, section 5)."""

import math

import pytest

from chargewatch.domain.assessment import tier_of
from chargewatch.domain.signal import Severity
from chargewatch.domain.verdict import Tier, Verdict

BAD, GOOD, OPEN, NONE = (
    Verdict.NONCONFORMING,
    Verdict.CONFORMING,
    Verdict.UNDECIDED,
    Verdict.NOT_IDENTIFIABLE,
)
SEVERE, MILD, INFO = [Severity.SEVERE], [Severity.MILD], [Severity.INFO]


@pytest.mark.parametrize(
    ("verdict", "p", "options", "tier"),
    [
        (BAD, 0.99, {}, Tier.RED),
        (BAD, 0.99, {"silent": True, "severities": MILD}, Tier.RED),
        (GOOD, 0.01, {}, Tier.GREEN),
        (GOOD, 0.01, {"severities": SEVERE}, Tier.ORANGE),
        (OPEN, 0.50, {}, Tier.ORANGE),
        (OPEN, 0.49, {}, Tier.YELLOW),
        (OPEN, 0.20, {}, Tier.YELLOW),
        (OPEN, 0.10, {}, Tier.YELLOW),
        (GOOD, 0.01, {"drift_alarm": True}, Tier.YELLOW),
        (GOOD, 0.01, {"severities": MILD}, Tier.YELLOW),
        (GOOD, 0.01, {"severities": INFO}, Tier.GREEN),
        (GOOD, 0.01, {"silent": True}, Tier.GREY),
        (NONE, math.nan, {}, Tier.GREY),
        (NONE, math.nan, {"severities": SEVERE}, Tier.ORANGE),
        (NONE, math.nan, {"severities": MILD}, Tier.YELLOW),
    ],
)
def test_tier(verdict, p, options, tier):
    assert tier_of(verdict, p, **options) is tier
