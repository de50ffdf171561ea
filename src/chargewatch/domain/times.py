"""Lengths of time that the whole platform counts in."""

from __future__ import annotations

DAY_S = 86_400
SLOT_S = 900
"""Energies are kept by slots of 15 minutes since 1970."""
SLOTS_A_DAY = DAY_S // SLOT_S
