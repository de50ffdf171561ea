"""What a risk run says of a connector."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Decision on conformity, JCGM 106:2012."""

    CONFORMING = "conforming"
    NONCONFORMING = "nonconforming"
    UNDECIDED = "undecided"
    NOT_IDENTIFIABLE = "not_identifiable"


class Tier(StrEnum):
    """Order in which supervisors look at connectors."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    GREY = "grey"


TIER_ORDER: tuple[Tier, ...] = (Tier.RED, Tier.ORANGE, Tier.YELLOW, Tier.GREY, Tier.GREEN)
"""Most urgent first."""
