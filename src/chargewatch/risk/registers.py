"""Energies on a 15-minute grid from cumulative registers that are read at irregular times.

A register is known at its readings; between two readings only the energy of the whole span is
known, not when it flowed. The energy of a slot is the sum over the spans that overlap it of the
span's energy times the share of its time in the slot. A slot's result is *local*: it depends on
the readings inside it, the last one at or before its start and the first one at or after its end,
and is summed in the order of time, so an incremental rollup equals a recomputation to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from chargewatch.domain.arrays import Bools, Floats, Ints, sum_by_row
from chargewatch.domain.rollover import rollover_energy
from chargewatch.domain.times import SLOT_S
from chargewatch.risk.priors import DWELL_S, FLUCTUATION, SWITCHED
from chargewatch.risk.run_inputs import Intervals

MAX_GAP_S = 3600.0
"""A longer span with energy in it marks its slots as GAP."""


class Quality(IntFlag):
    """What limits the energy of an interval."""

    INTERPOLATED = 1
    """Its beginning or end lies inside a span that carried energy."""
    GAP = 2
    """Not known at both ends, or energy flowed in a span longer than the largest gap."""
    RESET = 4
    """A declared reset: the energy around it is not known and counted as zero."""
    FAULT = 8
    """The register fell without a declared reset; counted as zero."""


@dataclass(frozen=True)
class _Spans:
    instrument: Ints
    start_s: Floats
    end_s: Floats
    energy_wh: Floats
    quality: Ints
    known: Floats  # 1 when the energy comes from the difference of two readings, else 0


def interpolation_variance(energy_wh: Floats, share: Floats, *, span_s: Floats) -> Floats:
    """Return the variance, Wh^2, of the energy of a part of a span between two readings.

    Args:
        energy_wh: energy of the whole span, shape (k,).
        share: share of the span's time that the part has, 0 to 1, shape (k,).
        span_s: length of the span, s, shape (k,).

    Equation: var = E^2 w (1 - w) [c_0^2 + c_1^2 (1 - exp(-T / T_d))]. A Brownian bridge: nothing
    is uncertain at w = 0 and w = 1. c_0 is the wander of a steady charge. In a span in which a
    charge starts or ends at a uniformly distributed moment the standard deviation at w = 1/2 is
    0.39 E, so c_1 = 0.78; that happens with probability 1 - exp(-T / T_d).
    """
    switched = SWITCHED**2 * -np.expm1(-span_s / DWELL_S)
    return np.asarray(energy_wh**2 * share * (1.0 - share) * (FLUCTUATION**2 + switched))


def _spans(
    instrument: Ints, at_s: Floats, energy_wh: Floats, *, reset: Bools, rated_w: Floats
) -> _Spans:
    same = (instrument[1:] == instrument[:-1]) & (at_s[1:] > at_s[:-1])
    before, after = energy_wh[:-1][same], energy_wh[1:][same]
    start, end = at_s[:-1][same], at_s[1:][same]
    declared = reset[1:][same]
    energy = after - before
    rated = rated_w[instrument[:-1][same]]
    rolled = rollover_energy(before, after, span_s=end - start, rated_w=rated)
    rolled[declared] = np.nan
    energy = np.where(np.isnan(rolled), energy, rolled)
    fault = (energy < 0) & ~declared
    energy = np.where(declared | fault, 0.0, energy)
    quality = np.where(declared, int(Quality.RESET), 0)
    quality |= np.where(fault, int(Quality.FAULT), 0)
    quality |= np.where((end - start > MAX_GAP_S) & (energy > 0), int(Quality.GAP), 0)
    return _Spans(
        instrument[:-1][same],
        start,
        end,
        energy,
        quality.astype(np.int64),
        (~(declared | fault)).astype(np.float64),
    )


def _resolution_factor(first: Bools, slot_row: Ints, share: Floats, *, size: int) -> Floats:
    """Return sum_j c_j^2 for each slot: c_j is the coefficient of reading j in its energy.

    A reading between the spans j-1 and j has c_j = w_{j-1} - w_j, w being the spans' shares in the
    slot: readings deep inside cancel, those around the slot's ends remain.
    """
    before = np.where(first, 0.0, np.concatenate(([0.0], share[:-1])))
    last = np.concatenate((first[1:], [True])) if first.size else first
    change = (before - share) ** 2 + np.where(last, share**2, 0.0)
    return sum_by_row(slot_row, change, size=size).astype(np.float64)


def interval_energy(
    instrument: Ints,
    at_s: Floats,
    energy_wh: Floats,
    *,
    reset: Bools,
    resolution_wh: Floats,
    first_slot: int,
    last_slot: int,
    rated_w: Floats | None = None,
) -> Intervals:
    """Return the energy of instruments in the slots of [first_slot, last_slot).

    Args:
        instrument: row of the instrument, shape (k,); readings are sorted by (instrument, at).
        at_s: time of the reading, s since 1970, shape (k,).
        energy_wh: cumulative register, Wh, shape (k,).
        reset: the reading declares a reset of the register, shape (k,).
        resolution_wh: step of the register by instrument row, Wh, shape (instruments,).
        first_slot: first slot returned, in slots of 900 s since 1970.
        last_slot: one after the last slot returned.
        rated_w: rated power by instrument row, W, shape (instruments,); NaN, or None: not known.

    Returns: every slot that overlaps a span between two readings of an instrument. A slot that
    is only partly covered has the energy of the covered part and the mark GAP.
    Equation: E_slot = sum_p w_p E_p with w_p the share of span p's time in the slot; u^2 =
    sum_p of `interpolation_variance` + (resolution^2 / 12) sum_j (w_{j-1} - w_j)^2.
    Errors of slots that share a span are anticorrelated: their sum is known to the resolution.
    """
    rated = np.full(resolution_wh.shape, np.nan) if rated_w is None else rated_w
    spans = _spans(instrument, at_s, energy_wh, reset=reset, rated_w=rated)
    begin = np.maximum(np.floor(spans.start_s / SLOT_S).astype(np.int64), first_slot)
    stop = np.minimum(np.ceil(spans.end_s / SLOT_S).astype(np.int64), last_slot)
    pieces = np.maximum(stop - begin, 0)
    row = np.repeat(np.arange(pieces.size), pieces)
    offset = np.arange(row.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    slot = begin[row] + offset
    start, end = spans.start_s[row], spans.end_s[row]
    inside = np.minimum(end, (slot + 1.0) * SLOT_S) - np.maximum(start, slot * float(SLOT_S))
    share = inside / (end - start)
    owner = spans.instrument[row]
    if row.size == 0:
        nothing = np.zeros(0)
        none = np.zeros(0, dtype=np.int64)
        return Intervals(
            instrument=none,
            slot=none,
            energy_wh=nothing,
            u_wh=nothing,
            quality=np.zeros(0, dtype=np.int16),
        )

    first = np.ones(row.size, dtype=bool)
    first[1:] = (owner[1:] != owner[:-1]) | (slot[1:] != slot[:-1])
    # bincount adds in the order of time, whatever else is in the arrays: equal to the bit.
    slot_row = np.cumsum(first) - 1
    size = int(slot_row[-1]) + 1
    energy = sum_by_row(slot_row, spans.energy_wh[row] * share, size=size).astype(np.float64)
    variance = sum_by_row(
        slot_row, interpolation_variance(spans.energy_wh[row], share, span_s=end - start), size=size
    )
    instrument_out = owner[first]
    factor = _resolution_factor(first, slot_row, share * spans.known[row], size=size)
    variance += resolution_wh[instrument_out] ** 2 / 12.0 * factor
    covered = sum_by_row(slot_row, inside, size=size)
    partial = (share < 1.0) & (spans.energy_wh[row] > 0)
    mark = spans.quality[row] | np.where(partial, int(Quality.INTERPOLATED), 0)
    quality = np.bitwise_or.reduceat(mark, np.flatnonzero(first))
    quality |= np.where(covered < SLOT_S - 1e-3, int(Quality.GAP), 0)
    return Intervals(
        instrument=instrument_out,
        slot=slot[first],
        energy_wh=energy,
        u_wh=np.sqrt(variance),
        quality=quality.astype(np.int16),
    )
