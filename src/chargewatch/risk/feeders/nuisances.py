"""What feeder meters see besides their connectors: auxiliaries, clock and losses; prior means.

The eleven nuisances of `balance`, in its order: a(t) as a constant and two harmonics of the day
(0 to 4), the clocks' offset delta (5), feeder loss l (6), cable loss k_c (7), and a converter's
loss k_d, p_0 and p_1 (8 to 10).
"""

from __future__ import annotations

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.domain.currents import (
    LARGEST_ONE_PHASE_W,
    LEAST_CURRENT_A,
    LIGHT_SHARE,
    NOMINAL_V,
)
from chargewatch.domain.times import DAY_S, SLOT_S
from chargewatch.risk.feeders.blocks import Group
from chargewatch.risk.feeders.day import FeederRows
from chargewatch.risk.feeders.noise import SLOT_H
from chargewatch.risk.priors import (
    AUXILIARY,
    AUXILIARY_WAVE,
    COMPENSATED_LOSS,
    CONVERTER_IDLE_LOSS,
    CONVERTER_LIGHT_LOSS,
    CONVERTER_LOAD_LOSS,
    DC_EFFICIENCY,
    FEEDER_CLOCK,
    FEEDER_LOSS,
    LIGHT_LOSS_SCALE,
    UNKNOWN_POWER_W,
)
from chargewatch.risk.run_inputs import Fleet

NUISANCES = 11
CLOCK = 5
"""Place of the clocks' offset among the nuisances, s."""
DAILY = 6
"""The first nuisances, auxiliaries and clock, are free when a day is judged alone."""
NUISANCE_PRIORS = (
    AUXILIARY,
    *[AUXILIARY_WAVE] * 4,
    FEEDER_CLOCK,
    FEEDER_LOSS,
    COMPENSATED_LOSS,
    CONVERTER_LOAD_LOSS,
    CONVERTER_IDLE_LOSS,
    CONVERTER_LIGHT_LOSS,
)
NUISANCE_MEAN = np.array([prior.mean for prior in NUISANCE_PRIORS])
NUISANCE_U = np.array([prior.u for prior in NUISANCE_PRIORS])


def prior_gain(group: Group, fleet: Fleet) -> Floats:
    """Return 1 / efficiency before any data, shape (b, q)."""
    dc = (group.member >= 0) & fleet.is_dc[group.member] & ~group.same_side
    return np.where(dc, 1.0 / DC_EFFICIENCY.mean, 1.0)


def nuisance_prior(group: Group) -> tuple[Floats, Floats]:
    """Return mean (p,) and precision (p,) of the nuisances' prior; zero for the gains."""
    mean = np.concatenate([np.zeros(group.size), NUISANCE_MEAN])
    precision = np.concatenate([np.zeros(group.size), NUISANCE_U**-2.0])
    return mean, precision


def rated_powers(group: Group, picked: slice, fleet: Fleet) -> Floats:
    """Return rated powers, W, shape (b, q), 0 where padded."""
    member = group.member[picked]
    return np.where(
        member >= 0, np.nan_to_num(fleet.rated_power_w[member], nan=UNKNOWN_POWER_W), 0.0
    )


def light_edges(fleet: Fleet) -> Floats:
    """Return the fraction of rated power below which each connector's load is light, shape (n,).

    That is I_min over I_max: a tenth, and not below 6 A. Where I_max is not told it is the current
    at rated power, AC by 230 V and from 7.7 kW on by three phases; for DC a tenth.
    Source: JJG 1148-2022 and 1149-2022 as told by others, not read in the text itself.
    """
    rated = np.nan_to_num(fleet.rated_power_w, nan=UNKNOWN_POWER_W)
    volts = np.where(rated > LARGEST_ONE_PHASE_W, 3.0 * NOMINAL_V, NOMINAL_V)
    guess = np.where(fleet.is_dc, np.inf, rated / volts)
    current = np.where(fleet.max_current_a > 0, fleet.max_current_a, guess)
    return np.clip(LEAST_CURRENT_A / np.maximum(current, 1e-9), LIGHT_SHARE, 1.0)


def slot_powers(energy: Floats) -> Floats:
    """Return the power of each slot, W, shape (b, t, q): that of the fullest neighbour.

    Slots at a session's ends are partly idle, so their mean is not a power that ever was.
    """
    fullest = energy.copy()
    fullest[:, 1:] = np.maximum(fullest[:, 1:], energy[:, :-1])
    fullest[:, :-1] = np.maximum(fullest[:, :-1], energy[:, 1:])
    return np.asarray(fullest / SLOT_H)


def boundary_powers(energy: Floats) -> Floats:
    """Return the power of all connectors at the slots' boundaries, W, shape (b, t + 1).

    What a clock's offset moves from one slot to the next. Who delivers in both slots beside a
    boundary delivers at it; who delivers in one of them began or ended inside that one.

    Args:
        energy: of connectors, Wh, shape (b, t, q).
    """
    power = np.where(energy > 0, slot_powers(energy), 0.0)
    both = (energy[:, :-1] > 0) & (energy[:, 1:] > 0)
    between = np.where(both, 0.5 * (power[:, :-1] + power[:, 1:]), 0.0).sum(axis=2)
    ends = power[:, [0, -1]].sum(axis=2)
    return np.concatenate([ends[:, :1], between, ends[:, 1:]], axis=1)


def nuisance_columns(group: Group, picked: slice, rows: FeederRows, *, fleet: Fleet) -> Floats:
    """Return the columns of the nuisances, shape (b, t, 11)."""
    member = group.member[picked]
    known = member >= 0
    rated = rated_powers(group, picked, fleet)
    dc = known & fleet.is_dc[member] & ~group.same_side[picked]
    compensated = known & fleet.cable_loss_compensated[member]
    b, t, _ = rows.energy.shape
    second = (np.arange(t) + 0.5) * SLOT_S
    angle = 2.0 * np.pi * second / DAY_S
    total = rows.energy.sum(axis=2)
    power = slot_powers(rows.energy)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(rated[:, None, :] > 0, power / rated[:, None, :], 0.0)
        active_h = np.where(power > 0, rows.energy / power, 0.0)
    loaded = rows.energy * load
    columns = np.empty((b, t, NUISANCES))
    columns[..., 0] = SLOT_H
    for place, wave in enumerate((np.cos, np.sin)):
        columns[..., 1 + place] = SLOT_H * wave(angle)
        columns[..., 3 + place] = SLOT_H * wave(2.0 * angle)
    columns[..., CLOCK] = np.diff(boundary_powers(rows.energy), axis=1) / 3600.0
    columns[..., 6] = total**2 / SLOT_H / np.maximum(rated.sum(axis=1), 1.0)[:, None]
    columns[..., 7] = np.einsum("btq,bq->bt", loaded, compensated.astype(np.float64))
    columns[..., 8] = np.einsum("btq,bq->bt", loaded, dc.astype(np.float64))
    columns[..., 9] = np.einsum("btq,bq->bt", active_h, dc * rated)
    light = rows.energy * np.exp(-load / LIGHT_LOSS_SCALE)
    columns[..., 10] = np.einsum("btq,bq->bt", light, dc.astype(np.float64))
    return columns
