"""Smallest and largest current of a connector, where its marks don't tell them.

Source: JJG 1148-2022 and 1149-2022 as told by others, not read in the text itself.
"""

from __future__ import annotations

LIGHT_SHARE = 0.1
LEAST_CURRENT_A = 6.0
"""I_min: a tenth of I_max, and not below 6 A."""
NOMINAL_V = 230.0
LARGEST_ONE_PHASE_W = 7_700.0
"""AC piles of more rated power have three phases."""


def largest_current_a(
    *, is_dc: bool, max_current_a: float | None, rated_power_w: float | None
) -> float | None:
    """Return I_max, A: as marked, else AC the current at rated power; None where not known."""
    if max_current_a:
        return max_current_a
    if is_dc or not rated_power_w:
        return None
    phases = 3.0 if rated_power_w > LARGEST_ONE_PHASE_W else 1.0
    return rated_power_w / (phases * NOMINAL_V)


def smallest_current_a(*, min_current_a: float | None, i_max_a: float) -> float:
    """Return I_min, A: as marked, else a tenth of I_max and not below 6 A."""
    return min_current_a or max(LIGHT_SHARE * i_max_a, LEAST_CURRENT_A)
