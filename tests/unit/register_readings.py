"""Readings of registers made by hand, and what they prove."""

import numpy as np
from facts import block_of

from chargewatch.domain.times import DAY_S
from chargewatch.signals.registers import Piles, Readings
from chargewatch.signals.registry import findings_of, without_explained

T0 = 20_500 * DAY_S
PILES = Piles(rated_power_w=np.array([7000.0, 7000.0]), resolution_wh=np.array([1.0, 1.0]))


def readings(energy, *, step_s=60.0, power=np.nan, at=None, reset=(), session=0, end=(), begin=()):
    n = len(energy)
    return Readings(
        connector=np.zeros(n, np.int64),
        at_s=T0 + (np.arange(n) * step_s if at is None else np.asarray(at, float)),
        energy_wh=np.asarray(energy, float),
        power_w=np.broadcast_to(np.asarray(power, float), (n,)).copy(),
        session=np.broadcast_to(np.asarray(session, np.int64), (n,)).copy(),
        is_reset=np.isin(np.arange(n), reset),
        is_begin=np.isin(np.arange(n), begin),
        is_end=np.isin(np.arange(n), end),
    )


def codes(given_readings, piles=PILES):
    """Return what readings alone prove: whatever else flows, flows outside any session."""
    found = without_explained(findings_of(block_of(given_readings, piles)))
    return sorted(finding.code for finding in found if finding.code != "idle_consumption")


def charge(n=60, power=6000.0, start=100_000.0, step_s=60.0, gain=1.0):
    return start + np.round(np.arange(n) * power * step_s / 3600 * gain)
